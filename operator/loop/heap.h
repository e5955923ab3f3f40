/* heap — what is due next: a pairing heap (Fredman, Sedgewick, Sleator and Tarjan 1986) of nodes embedded in what
 * they belong to, so that adding to it cannot fail. Equal due times come out in no particular order. */
#ifndef THOLE_OPERATOR_HEAP_H
#define THOLE_OPERATOR_HEAP_H

#include <stddef.h>
#include <stdint.h>

struct heap_node {
    int64_t due;
    struct heap_node *child, *next; /* first child; next sibling */
    struct heap_node *previous;     /* the sibling before, or the parent of a first child */
};

struct heap {
    struct heap_node *root; /* the earliest, NULL when empty */
};

void heap_insert(struct heap *heap, struct heap_node *node); /* `due` is set before; node must be in no heap */
void heap_remove(struct heap *heap, struct heap_node *node); /* node must be in this heap */

#define heap_owner(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

#endif
