/* local — a whole TrainJob on this machine: the role `thole-trainer local`.
 *
 * Does what operator and Kubernetes do in a cluster, in small: reads the same YAML, compiles the same plan, starts one
 * process a role over loopback, starts workers again that end, and keeps history and model as files. The processes
 * compute what they would compute in a cluster, to the same bits. Nothing it starts outlives it.
 * May call common, setup and wire (sockets); the roles run as processes of their own.
 */
#ifndef THOLE_LOCAL_LOCAL_H
#define THOLE_LOCAL_LOCAL_H

/* The process's exit status: 0 where the job succeeded, 1 where it did not, 2 for wrong usage. */
int local_main(int argc, char **argv);

/* A worker's exit status where it could not read the data set: here, starting it again will not help. (EX_DATAERR.) */
enum { LOCAL_BAD_DATA = 65 };

#endif
