#include "common/manifest/cel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char self_text[] =
    "{\"type\":\"Step\",\"n\":3,\"zero\":0,\"flag\":true,\"off\":false,\"names\":[\"a\",\"b\",\"b\"],\"none\":[],"
    "\"inner\":{\"x\":1},\"labels\":{\"team\":\"vision\",\"example.com/a\":\"b\"},\"cpu\":\"1500m\",\"two\":2,"
    "\"path\":\"a/../b\",\"word\":\"данные\"}";

static void rules_hold_fail_or_cannot_be_said(void **state)
{
    (void)state;
    /* 1: it holds; 0: it does not; −1: there is no saying */
    static const struct {
        const char *rule;
        int want;
    } cases[] = {
        {"self.type == 'Step'", 1},
        {"self.type != \"Step\"", 0},
        {"self.n <= 3 && self.n >= 3 && self.n > 2 && self.n < 4", 1},
        {"self.n == 3.0", 1},
        {"self.n == -3", 0},
        {"-self.n == -3", 1},
        {"self.n + self.two + 1 == 6 && self.n + -self.two < self.two", 1},
        {"self.n + self.type == 3", -1},
        {"self.type + self.n == 3", -1},
        {"self.n + self.m == 3", -1},
        {"has(self.n) && !has(self.m)", 1},
        {"has(self.inner.x) && !has(self.inner.y)", 1},
        {"has(self.m.y)", -1},
        {"self.m == 1", -1},
        {"self.n == 'three'", -1},
        {"self.n", -1},
        {"self.flag && !self.off", 1},
        {"self.m == 1 || self.flag", 1},
        {"self.flag || self.m == 1", 1},
        {"self.m == 1 || self.off", -1},
        {"self.m == 1 && self.off", 0},
        {"self.off && self.m == 1", 0},
        {"self.flag && self.m == 1", -1},
        {"self.off || self.off || self.flag", 1},
        {"self.flag && self.flag && self.off", 0},
        {"self.off && self.flag || self.flag", 1},
        {"self.flag || self.flag && self.off", 1},
        {"(self.flag || self.flag) && self.off", 0},
        {"(has(self.m) ? self.m : 8) == 8", 1},
        {"(has(self.n) ? self.n : self.m) == 3", 1},
        {"self.type in ['Cosine', 'Step']", 1},
        {"!(self.type in ['Cosine', 'Constant'])", 1},
        {"'team' in self.labels", 1},
        {"'x' in self.labels", 0},
        {"self.names[1] == 'b' && self.labels['team'] == 'vision'", 1},
        {"self.names[7] == 'b'", -1},
        {"size(self.names) == 3 && self.names.size() == 3", 1},
        {"size(self.word) == 6 && self.type.size() == 4", 1},
        {"self.names.all(name, name == 'a' || name == 'b')", 1},
        {"self.names.all(name, name == 'a')", 0},
        {"self.none.all(name, name == 'a')", 1},
        {"self.names.exists(name, name == 'b')", 1},
        {"self.none.exists(name, name == 'b')", 0},
        {"self.names.exists_one(name, name == 'a')", 1},
        {"self.names.exists_one(name, name == 'b')", 0},
        {"[has(self.m), has(self.n), has(self.k)].exists_one(given, given)", 1},
        {"[has(self.m), has(self.k)].exists_one(given, given)", 0},
        {"self.labels.all(key, key.startsWith('team') || key.contains('/'))", 1},
        {"self.labels.all(key, self.labels[key].size() > 1)", 0},
        {"self.labels.all(key, self.names.exists(name, self.labels[key].contains(name)))", 0},
        {"self.names.map(name, name == 'b') == [false, true, true]", 1},
        {"self.names.map(name, name) == ['b', 'a', 'b']", 0},
        {"self.names.map(name, self.m) == []", -1},
        {"self.path.split('/').exists(part, part == '..')", 1},
        {"self.path.split('/').size() == 3", 1},
        {"self.type.matches('^[A-Z][a-z]{1,3}$')", 1},
        {"self.type.matches('^[a-z]')", 0},
        {"isQuantity(self.cpu) && !isQuantity(self.type)", 1},
        {"quantity(self.cpu).isLessThan(quantity('2')) && quantity('1Gi').isGreaterThan(quantity('1G'))", 1},
        {"isQuantity(string(self.two)) && quantity(string(self.two)).isGreaterThan(quantity(self.cpu))", 1},
        {"isQuantity('1.5') && isQuantity('-1') && isQuantity('2e3') && isQuantity('1E') && isQuantity('.5k')", 1},
        {"isQuantity('1 Gi') || isQuantity('1GB') || isQuantity('') || isQuantity('1.2.3') || isQuantity('2e')", 0},
        {"quantity(self.type).isLessThan(quantity('1'))", -1},
    };
    cleanup_json cJSON *self = cJSON_Parse(self_text);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool holds = false;
        struct error err = {0};
        if (cel_understood(cases[i].rule, &err) < 0)
            fail_msg("%s", error_message(&err));
        int result = cel_holds(&holds, cases[i].rule, self, &err);
        if (result < 0 ? cases[i].want >= 0 : cases[i].want != holds)
            fail_msg("%s: %d, not %d", cases[i].rule, result < 0 ? -1 : holds, cases[i].want);
    }
}

static void what_is_not_understood_is_said(void **state)
{
    (void)state;
    static const char *const rules[] = {
        "",
        "self.",
        "self.n ==",
        "self.n === 3",
        "(self.n == 3",
        "self.n == 3)",
        "other == 3",
        "self.names.filter(name, name)",
        "self.names.all(name)",
        "self.names.all(, true)",
        "duration('1s')",
        "self.type == 'Step",
        "self.type == 'St\\'ep'",
        "[1, 2",
        "self.off && nothing(self)",
        "self.n == 3 ? true",
        "!",
    };
    cleanup_json cJSON *self = cJSON_Parse(self_text);
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        struct error err = {0};
        bool holds = false;
        if (cel_understood(rules[i], &err) == 0 || cel_holds(&holds, rules[i], self, &err) == 0)
            fail_msg("'%s' is understood", rules[i]);
        assert_non_null(strstr(error_message(&err), "is not understood"));
    }
    char deep[400];
    memset(deep, '(', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    assert_int_equal(cel_understood(deep, NULL), -1);
    memset(deep, '!', sizeof deep - 1);
    assert_int_equal(cel_understood(deep, NULL), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_hold_fail_or_cannot_be_said),
        cmocka_unit_test(what_is_not_understood_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
