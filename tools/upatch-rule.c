// SPDX-License-Identifier: GPL-2.0-only
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "upatch-verbs.h"

static const char *const tests[] = {"always", "eq", "above", "below", "prefix"};

/* u8 to s64 */
static bool type_parse(const char *text, struct up_rule *rule)
{
	__u32 bits;

	if ((*text != 'u' && *text != 's') || !parse_u32(text + 1, 8, 64, &bits) ||
	    (bits & (bits - 1)))
		return false;
	rule->is_signed = *text == 's';
	rule->bytes = bits / 8;
	return true;
}

static __u64 type_min(const struct up_rule *rule)
{
	return rule->is_signed ? ~0ULL << (8 * rule->bytes - 1) : 0;
}

static __u64 type_max(const struct up_rule *rule)
{
	return rule->is_signed ? ~type_min(rule) : ~0ULL >> (64 - 8 * rule->bytes);
}

/* Decimal, 0x or octal; what does not fit into the type is none. */
static bool value_parse(const char *text, const struct up_rule *rule, __u64 *value)
{
	bool negative = *text == '-';
	const char *digits = text + negative;
	char *end;

	if (!isdigit(*digits))
		return false;
	errno = 0;
	*value = strtoull(digits, &end, 0);
	if (errno || *end || (negative && *value > 1ULL << 63))
		return false;
	if (negative)
		*value = -*value;
	if (rule->is_signed)
		return (negative ? (__s64)*value <= 0 : (__s64)*value >= 0) &&
		       (__s64)*value >= (__s64)type_min(rule) &&
		       (__s64)*value <= (__s64)type_max(rule);
	return !negative && *value <= type_max(rule);
}

static int bad(const char *option, const char *text)
{
	complain("--%s %s: not a value of --type %s", option, text, env.type ?: "u64");
	return USAGE;
}

static int deny_test(struct up_rule *rule)
{
	int has_arg = env.arg >= 0;
	const char *const texts[] = {NULL, env.eq, env.above, env.below, env.prefix};
	int n = 0;

	for (int i = UP_EQ; i < UP_TESTS; i++)
		if (texts[i]) {
			rule->test = i;
			n++;
		}
	if (n > 1 || n != has_arg)
		return usage_error("deny", "takes --arg with one of --eq, --above, --below and "
					   "--prefix, or none of them");
	if (rule->test == UP_STARTS) {
		size_t len = strlen(env.prefix);

		if (!len || len > UP_PREFIX)
			return usage_error("deny", "--prefix takes 1 to 32 bytes");
		memcpy(rule->prefix, env.prefix, len);
		rule->prefix_len = len;
	} else if (n && !value_parse(texts[rule->test], rule, &rule->value)) {
		return bad(tests[rule->test], texts[rule->test]);
	}
	return DONE;
}

int up_rule_parse(enum up_kind kind, struct up_rule *rule)
{
	const struct up_rule any = {.bytes = 8, .is_signed = true};
	int rc = DONE;

	*rule = (struct up_rule){.kind = kind, .bytes = 8};
	if (env.type && !type_parse(env.type, rule))
		return usage_error(up_kinds[kind], "--type takes u8, s8, u16 and so on to s64");
	rule->arg = env.arg < 0 ? 0 : env.arg;
	if (kind == UP_CLAMP) {
		if (env.arg < 0 || (!env.min && !env.max))
			return usage_error("clamp", "takes --arg, and --min, --max or both");
		rule->min = type_min(rule);
		rule->max = type_max(rule);
		if (env.min && !value_parse(env.min, rule, &rule->min))
			return bad("min", env.min);
		if (env.max && !value_parse(env.max, rule, &rule->max))
			return bad("max", env.max);
		if (rule->is_signed ? (__s64)rule->min > (__s64)rule->max : rule->min > rule->max)
			return usage_error("clamp", "--min is above --max");
	} else if (kind == UP_DENY) {
		const struct up_rule whole = {.bytes = 8};

		rc = deny_test(rule);
		if (!rc && !env.ret)
			return usage_error("deny", "takes --return, the value that the caller gets");
		if (!rc && !value_parse(env.ret, &any, &rule->ret) &&
		    !value_parse(env.ret, &whole, &rule->ret)) {
			complain("--return %s: not a number", env.ret);
			return USAGE;
		}
	}
	return rc;
}

/* --- back to words --- */

static const char *value_text(__u64 v, bool is_signed, char text[32])
{
	snprintf(text, 32, is_signed ? "%lld" : "%llu", v);
	return text;
}

/* A terminal does what it reads: only what can be seen is shown. */
static void prefix_text(const struct up_rule *rule, char text[4 * UP_PREFIX + 1])
{
	char *to = text;

	for (int i = 0; i < rule->prefix_len; i++)
		to += sprintf(to, rule->prefix[i] > ' ' && rule->prefix[i] < 127 &&
			      rule->prefix[i] != '\\' ? "%c" : "\\x%02x", rule->prefix[i]);
	*to = 0;
}

const char *up_rule_text(const struct up_rule *rule, char text[256])
{
	char a[32], b[32], prefix[4 * UP_PREFIX + 1], type[8];

	snprintf(type, sizeof(type), "%c%d", rule->is_signed ? 's' : 'u', 8 * rule->bytes);
	if (rule->kind == UP_CLAMP) {
		snprintf(text, 256, "clamp argument %u (%s) to %s..%s", rule->arg, type,
			 value_text(rule->min, rule->is_signed, a),
			 value_text(rule->max, rule->is_signed, b));
	} else if (rule->kind != UP_DENY) {
		snprintf(text, 256, "%s", up_kinds[rule->kind]);
	} else if (rule->test == UP_ALWAYS) {
		snprintf(text, 256, "deny, return %lld", rule->ret);
	} else if (rule->test == UP_STARTS) {
		prefix_text(rule, prefix);
		snprintf(text, 256, "deny if argument %u begins with \"%s\", return %lld",
			 rule->arg, prefix, rule->ret);
	} else {
		snprintf(text, 256, "deny if argument %u (%s) is %s %s, return %lld", rule->arg,
			 type, rule->test == UP_EQ ? "equal to" : tests[rule->test],
			 value_text(rule->value, rule->is_signed, a), rule->ret);
	}
	return text;
}

/* Numbers of 64 bits without a sign do not fit into JSON's: they are text. */
json_t *up_rule_json(const struct up_rule *rule)
{
	char text[256], a[32], b[32];
	json_t *doc = json_pack("{s:s}", "text", up_rule_text(rule, text));

	if (rule->kind == UP_CLAMP || (rule->kind == UP_DENY && rule->test != UP_ALWAYS))
		json_object_set_new(doc, "arg", json_integer(rule->arg));
	if (rule->kind == UP_CLAMP) {
		json_object_set_new(doc, "min",
				    json_string(value_text(rule->min, rule->is_signed, a)));
		json_object_set_new(doc, "max",
				    json_string(value_text(rule->max, rule->is_signed, b)));
	} else if (rule->kind == UP_DENY) {
		json_object_set_new(doc, "test", json_string(tests[rule->test]));
		json_object_set_new(doc, "return", json_integer(rule->ret));
		if (rule->test != UP_ALWAYS && rule->test != UP_STARTS)
			json_object_set_new(doc, "value",
					    json_string(value_text(rule->value, rule->is_signed,
								   a)));
	}
	return doc;
}
