// Templates come from strangers, and so does what they render.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/jinja/json_value.h"
#include "lwm/jinja/template.h"

namespace lwm::jinja {
namespace {

const Variables kVariables = {{"s", Value::Of(Text("<|end|>", /*foreign=*/true))},
                              {"bos_token", Value::Of(Text("<s>"))}};

Text Render(const std::string& source, const RenderOptions& options = {}) {
  return Template(source, "t.jinja").Render(kVariables, options);
}

// The message of the Error that the template is refused with.
std::string Refusal(const std::string& source, ErrorCode code = ErrorCode::kCorruptData) {
  try {
    Render(source, {.operations = 100'000, .bytes = 1 << 20});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "rendered: " << source.substr(0, 80);
  return "";
}

// The text with every byte that came from a variable as '.'.
std::string OwnPart(const std::string& source) {
  const Text text = Render(source);
  std::string own = text.bytes();
  for (size_t i = 0; i < own.size(); ++i)
    if (text.is_foreign(i)) own[i] = '.';
  return own;
}

TEST(TemplateSafetyTest, BytesOfVariablesStayMarkedThroughEveryOperation) {
  EXPECT_EQ(OwnPart("{{ bos_token + s }}<|end|>"), "<s>.......<|end|>");
  EXPECT_EQ(OwnPart("{{ (s ~ 'a') | trim | upper }}"), ".......A");
  EXPECT_EQ(OwnPart("{{ s[1:-1] }}{{ s[0] }}{{ s | first }}"), ".......");
  EXPECT_EQ(OwnPart("{{ s.replace('<', '<|') }}"), "<|......");
  EXPECT_EQ(OwnPart("{{ s.split('|') | join('+') }}{{ [s] }}"), ".+...+.['.......']");
  EXPECT_EQ(OwnPart("{{ {'k': s} | tojson }}"), "{\"k\": \".......\"}");
  EXPECT_EQ(OwnPart("{% set b %}x{{ s }}{% endset %}{% macro m(q) %}{{ q }}y{% endmacro %}"
                    "{{ b }}{{ m(s) }}{% for c in s %}{{ c }}-{% endfor %}"),
            "x..............y.-.-.-.-.-.-.-");
  EXPECT_EQ(OwnPart("{{ s | indent(2, true) }}{{ s * 2 }}{{ s.title() }}"),
            "  ............................");
}

TEST(TemplateSafetyTest, WhatIsNotSupportedIsNamedWithItsLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a\n{% include 'x' %}", "t.jinja:2: the tag {% include %} is not supported"},
      {"{% import 'x' as y %}", "the tag {% import %}"},
      {"{% for a in b recursive %}{% endfor %}", "recursive loops are not supported"},
      {"{{ s |\n wordwrap }}", "t.jinja:2: the filter \"wordwrap\" is not supported"},
      {"{{ s is prime }}", "the test \"prime\" is not supported"},
      {"{{ s.format(1) }}", "\"format\" is called, but there is no such function or method"},
      {"{{ '%d' % 3 }}", "formatting a string with \"%\" is not supported"},
      {"{{ '\xC3\x9F' | upper }}", "cannot change the case of U+00DF"},
      {"{{ s | tojson(ensure_ascii=true) }}", "ensure_ascii"},
      {"{{ f(*s) }}", "arguments with * or **"},
      {"{{ [1].append(2) }}", "\"append\" is called"},
      {"{% for x in [1] %}{% macro m() %}{% endmacro %}{% endfor %}", "macros inside of loops"},
      {"{{ 1 \x01 }}", "unexpected character"},
      {"{{ 99999999999999999999 }}", "is too large"},
      {"{{ 9223372036854775807 + 1 }}", "a number leaves 64 bits"},
      {"{{ \"\\ud800\" }}", "a broken \\u escape"},
      {"{{ namespace(a=namespace()) }}", "a namespace inside of another value"},
  };
  for (const auto& [source, message] : cases)
    EXPECT_NE(Refusal(source).find(message), std::string::npos) << Refusal(source);
  EXPECT_NE(Refusal("{{ raise_exception('only users') }}", ErrorCode::kInvalidArgument)
                .find("refuses the conversation: only users"),
            std::string::npos);
}

TEST(TemplateSafetyTest, WorkMemoryAndNestingAreBounded) {
  const std::string loop = "{% for a in range(9999) %}";
  for (const std::string& source :
       {loop + loop + "{% endfor %}{% endfor %}",
        std::string("{% set n = namespace(t='aaaaaaaa') %}") + loop +
            "{% set n.t = n.t ~ n.t %}{% endfor %}",
        std::string("{% set n = namespace(t=[1]) %}") + loop +
            "{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.t }}",
        std::string("{% set n = namespace(t=[]) %}") + loop + "{% set n.t = [n.t] %}{% endfor %}",
        std::string("{{ [1] * 999999999 }}"), std::string("{{ 'x' * 999999999 }}"),
        std::string("{{ range(100001) }}"), std::string("{{ 'x' * 99999 | indent(1000) }}"),
        std::string("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")})
    Refusal(source);
  const auto repeated = [](const std::string& text, int count) {
    std::string all;
    for (int i = 0; i < count; ++i) all += text;
    return all;
  };
  Refusal("{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}");
  Refusal("{{ 1" + repeated(" + 1", 5000) + " }}");
  Refusal("{{ " + repeated("not ", 5000) + "1 }}");
  Refusal("{{ " + repeated("-", 5000) + "1 }}");
  Refusal("{{ s" + repeated("|trim", 5000) + " }}");
  Refusal("{{ s" + repeated("[0]", 5000) + " }}");
  Refusal(repeated("{% if 1 %}", 5000) + repeated("{% endif %}", 5000));
  Refusal(repeated("{{ 1 }}", 1 << 18));  // more source than is read
}

TEST(TemplateSafetyTest, EveryPrefixAndEveryMissingByteIsRefusedOrRendered) {
  const std::string source =
      "{%- macro m(a, b='x') -%}{{ a ~ b }}{%- endmacro %}{% set n = namespace(i=0) %}"
      "{% for x in [1, 'two', {'k': (3, 4)}][::-1] if x %}{# c #}{{ loop.index0 + 1 }}"
      "{% if x is string and not loop.last %}{{ m(x, b=\"\\n\") | upper }}{% else %}"
      "{{ x | tojson(indent=2) }}{% endif %}{% set n.i = n.i + 1 %}{% endfor %}"
      "{% raw %}{{{% endraw %}{{ n.i if n.i > 1 else none }}";
  Render(source);
  const auto attempt = [](const std::string& damaged) {
    try {
      Render(damaged, {.operations = 100'000, .bytes = 1 << 20});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptData) << error.what();
    }
  };
  for (size_t i = 0; i < source.size(); ++i) {
    attempt(source.substr(0, i));
    attempt(source.substr(0, i) + source.substr(i + 1));
    attempt(source.substr(0, i) + "}" + source.substr(i));
  }
}

TEST(TemplateSafetyTest, JsonThatIsNestedTooDeeplyIsTheCallersFault) {
  Json deep = 1;
  for (int i = 0; i < 100; ++i) deep = Json::array({deep});
  try {
    ValueOf(deep, true);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace lwm::jinja
