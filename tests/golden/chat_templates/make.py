"""Writes expected.json and snippets.json with Hugging Face transformers (5.24.0) and Jinja2 (3.1.6).

expected.json: apply_chat_template of every template in templates/ on every conversation of
conversations.json, without ("plain") and with add_generation_prompt ("prompt"); null where the
template refuses. snippets.json: small templates, their variables and their text; null: an error.
"""
import datetime
import json
import pathlib

import transformers.utils.chat_template_utils as utils
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
NOW = datetime.datetime(2026, 3, 5, 12, 30, 0)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
TOOLS = [{"type": "function", "function": {"description": "Today's \"weather\" for a city", "name": "weather",
          "parameters": {"properties": {"city": {"description": "the city <name>", "type": "string"}},
                         "required": ["city"], "type": "object"}}}]


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, *_):
        return NOW


VARIABLES = {
    "a": [3, 1, 2], "b": {"x": 1, "y": [True, None, 1.5]}, "s": "  Hello, World\n", "n": 7, "f": 2.5, "e": [],
    "words": ["b", "A", "c", "a"], "none": None, "t": True,
    "m": [{"role": "user", "content": "hi", "meta": {"k": 2}}, {"role": "assistant", "content": "yo", "meta": {"k": 1}},
          {"role": "user", "content": "é😀", "meta": {"k": 3}}],
}
SNIPPETS = r"""
a  {% if t %}  b
{% endif %}
c
---
a
  {%- if t -%}
  b
  {%- endif %}
 c
---
  {% if t +%}
x
  {%+ if t %}y{% endif %}
{% endif +%}
z
---
{# comment #}
a {#- b -#} c
{% raw %}
{{ x }} {% if %}
{% endraw %}
d
---
{%- raw -%}  {{ y }}  {%- endraw -%}  z
---
{{ a }} {{ b }} {{ s }} {{ f }} {{ none }} {{ t }} {{ missing }} {{ e }} {{ words }}
---
{{ 1 + 2 * 3 - 4 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 6 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ -n }} {{ +n }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}
---
{{ 1.0 }} {{ 1e }}
---
{{ 0.1 + 0.2 }} {{ 100000000.0 * 100000000 }} {{ 1.0 / 3 }} {{ 0.00001 * 1 }} {{ 1000000.0 * 1000000000 }}
---
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ 1 == 1.0 }} {{ 1 == true }} {{ '1' == 1 }} {{ a == [3, 1, 2] }} {{ a != [3] }} {{ n >= 7 and n <= 7 }}
---
{{ 'ell' in s }} {{ 'x' in b }} {{ 2 in a }} {{ 9 not in a }} {{ 'q' in missing }} {{ not t }} {{ not missing }}
---
{{ 'a' ~ 1 ~ none ~ t ~ missing ~ 2.0 }} {{ 'a' 'b' }} {{ 'a' * 3 }} {{ [1] * 2 + [2] }} {{ 2 * 'x' }}
---
{{ n and 0 or 'z' }} {{ none or e or 'last' }} {{ e and 1 }} {{ t and 'yes' }}
---
{{ 'x' if t else 'y' }} {{ 'x' if not t else 'y' }} {{ 'x' if not t }}| {{ 1 if 0 else 2 if 0 else 3 }}
---
{{ a[0] }} {{ a[-1] }} {{ a[9] }} {{ s[2] }} {{ s[-2] }} {{ b.x }} {{ b['x'] }} {{ b.y[2] }} {{ b.missing }} {{ m[0].meta.k }} {{ m.0.role }}
---
{{ a[1:] }} {{ a[:-1] }} {{ a[::-1] }} {{ a[::2] }} {{ s[2:7] }} {{ s[::-1] }} {{ 'héé😀x'[1:4] }} {{ a[5:] }} {{ a[-2:] }} {{ a[2:0:-1] }} {{ a[none:2] }}
---
{{ s.strip() }}|{{ s.lstrip() }}|{{ s.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abcab'.rstrip('ab') }}|{{ 'abc'.lstrip('ab') }}
---
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'a b c'.split(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a</think>b'.split('</think>')[-1] }}
---
{{ 'Hello'.startswith('He') }} {{ 'Hello'.endswith('lo') }} {{ 'Hello'.startswith(('x', 'H')) }} {{ 'hello wORLD it\'s'.title() }} {{ 'hELLO'.capitalize() }} {{ 'aXb'.upper() }} {{ 'AxB'.lower() }} {{ 'ÄÖÜ é Я'.lower() }} {{ 'äöü É я'.upper() }}
---
{{ 'aXbXc'.replace('X', '--') }} {{ 'aXbXc'.replace('X', '', 1) }} {{ 'héllo'.find('l') }} {{ 'abc'.find('z') }} {{ 'abcb'.rfind('b') }} {{ 'abcb'.count('b') }} {{ ','.join(words) }} {{ 'a\nb\r\nc\n'.splitlines() }} {{ '12'.isdigit() }} {{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('bc') }} {{ ' '.isspace() }}
---
{{ s | trim }}|{{ s | upper }}|{{ 'aBc' | lower }}|{{ 'aBC dEF' | capitalize }}|{{ 'hello wORLD-it\'s (me) [x]' | title }}|{{ s | length }}|{{ a | count }}|{{ b | length }}|{{ 'é😀' | length }}|{{ missing | length }}
---
{{ missing | default('d') }} {{ none | default('d') }} {{ none | default('d', true) }} {{ e | d('x', boolean=true) }} {{ missing | default }}| {{ s | default('q') | trim }}
---
{{ a | first }} {{ a | last }} {{ e | first }}| {{ 'abc' | first }} {{ a | join }} {{ a | join(', ') }} {{ m | join('+', attribute='role') }} {{ words | sort }} {{ words | sort(case_sensitive=true) }} {{ a | sort(reverse=true) }} {{ m | sort(attribute='meta.k') | map(attribute='role') | join }} {{ a | reverse | list }} {{ 'abc' | reverse }} {{ [1, 2, 1, 3, 2] | unique | list }} {{ words | unique | list }} {{ a | sum }} {{ m | sum(attribute='meta.k') }}
---
{{ b | items | list }} {{ b.items() | list }} {{ b.keys() | list }} {{ b.values() | list }} {{ b.get('x') }} {{ b.get('q') }} {{ b.get('q', 5) }} {{ b | dictsort }} {{ missing | items | list }} {{ b | list }}
---
{{ m | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }} {{ m | rejectattr('role', 'eq', 'user') | list | length }} {{ m | selectattr('meta') | list | length }} {{ m | selectattr('tool_calls', 'defined') | list }} {{ a | select('odd') | list }} {{ a | reject('gt', 1) | list }} {{ [0, 1, '', 'x'] | select | list }} {{ a | map('string') | join('-') }} {{ words | map('upper') | list }} {{ m | map(attribute='q', default='z') | list }} {{ ['a', 'b'] | map('replace', 'a', 'c') | list }}
---
{{ b | tojson }} {{ 'a"b\\\n\t<é>&\x01' | tojson }} {{ [1.0, none, true, {'k': 'v'}] | tojson }} {{ {} | tojson }} {{ [] | tojson(indent=2) }}
{{ b | tojson(indent=2) }}
{{ {'z': 1, 'a': {'q': [1, {}]}} | tojson(indent=4, sort_keys=true) }}
{{ {'a': [1, 2]} | tojson(separators=(',', ':')) }}
---
{{ '5' | int + 1 }} {{ 'x' | int }} {{ 'x' | int(3) }} {{ 2.9 | int }} {{ '2.9' | int }} {{ '1.5' | float }} {{ 3 | float }} {{ 'q' | float }} {{ -3 | abs }} {{ 5 | string + 'x' }} {{ (5 | string) ~ 'x' }} {{ true + 1 }}
---
{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb\n\nc' | indent(2, true) }}|{{ 'a\n\nb' | indent(2, blank=true) }}|{{ 'aXb' | replace('X', 'Y') }}|{{ 'x' | safe }}
---
{% for x in a %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ',' if not loop.last }}{% if loop.first %}!{% endif %}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.index0 }} {{ loop.previtem }}-{{ loop.nextitem }} {{ loop.cycle('o', 'e') }}
{% endfor %}
---
{% for x in e %}x{% else %}empty{% endfor %}{% for x in missing %}x{% else %} gone{% endfor %}{% for c in 'héé' %}[{{ c }}]{% endfor %}{% for k in b %}{{ k }}{% endfor %}{% for k, v in b.items() %}{{ k }}={{ v }};{% endfor %}{% for (k, v) in b | dictsort %}{{ k }}{% endfor %}
---
{% for x in a if x > 1 %}{{ loop.index }}{{ x }}{{ loop.last }} {% endfor %}{% for x in range(5) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %} {{ range(2, 8, 3) | list }} {{ range(5, 0, -2) | list }} {{ range(3)[1] }}
---
{% set x = 1 %}{% for i in a %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}{% if t %}{% set x = 5 %}{% endif %}{{ x }}
---
{% set ns = namespace(c=0, l=[]) %}{% for i in a %}{% set ns.c = ns.c + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.c }} {{ ns.l }} {{ ns.q is defined }} {{ ns['c'] }}
---
{% set p, q = 1, 'two' %}{{ p }}{{ q }}{% set block %}in {{ p }}{% endset %}{{ block | upper }}
---
{% macro greet(name, mark='!') %}Hi {{ name }}{{ mark }}{% endmacro %}{{ greet('Bob') }} {{ greet('Al', '?') }} {{ greet(mark='.', name='Z') }} {{ greet() }}{% macro down(k) %}{{ k }}{% if k > 0 %}{{ down(k - 1) }}{% endif %}{% endmacro %} {{ down(4) }}
---
{% set g = 3 %}{% macro show() %}{{ g }}{{ n }}{% endmacro %}{{ show() }}{% for g in [1] %}{{ show() }}{% endfor %}{{ show() | length }}
---
{{ missing is defined }} {{ n is defined }} {{ none is none }} {{ s is string }} {{ b is mapping }} {{ a is iterable }} {{ s is iterable }} {{ n is iterable }} {{ n is number }} {{ t is number }} {{ f is float }} {{ n is integer }} {{ t is integer }} {{ t is boolean }} {{ t is true }} {{ n is true }} {{ t is false }} {{ a is sequence }} {{ b is sequence }} {{ n is odd }} {{ n is even }} {{ 9 is divisibleby 3 }} {{ n is equalto 7 }} {{ n is eq(7) }} {{ n is ne 7 }} {{ n is gt 3 }} {{ n is in [7] }} {{ n is not in [7] }} {{ 'a' is lower }} {{ 'A' is upper }} {{ missing is undefined }} {{ n is not none }} {{ none is sameas none }} {{ not n is defined }} {{ namespace is callable }} {{ 1.0 is sameas 1 }}
---
{{ {'a': 1, 'b': {'c': [1, 2]}}.b.c[1] }} {{ (1, 2) }} {{ (1,) }} {{ () }} {{ ['it\'s', 'say "x"', 'both \' "', 'n\nl\\'] }} {{ {'k': 'v', 1: 2} }} {{ {'a': {'b': {}}} }}
---
{{ "\x41\u00e9\U0001F600\t|\101\q\\" }}
---
{{ -1 | abs }} {{ -a[0] }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 10 - 2 - 3 }} {{ 2 * 3 % 4 }} {{ 'a' ~ (1 + 2) }} {{ 'x' ~ 'y' | upper }} {{ not 1 == 2 }} {{ 1 + 1 is even }}
---
{{ dict(a=1, b='x') }} {{ strftime_now('%Y-%m-%d %d %B %Y %b') }} {{ tools }} {{ add_generation_prompt }} {{ loop is defined }} {{ true }} {{ True }} {{ None }} {{ False }}
---
{% if missing %}a{% elif n == 7 %}b{% else %}c{% endif %}
---
{% if a and a[0] == 3 %}b{% else %}c{% endif %} {% if m[0].tool_calls %}q{% else %}r{% endif %}{{ m[0].tool_calls }} {{ m[0]['tool_calls'] is defined }}
---
{% generation %}inside {{ n }}{% endgeneration %} after
---
{{ missing + 1 }}
---
{{ missing.x }}
---
{{ 1 + 'a' }}
---
{{ 'a' + none }}
---
{{ n() }}
---
{{ s | nofilter }}
---
{{ s is notest }}
---
{% for x in n %}{% endfor %}
---
{{ a.append(1) }}
---
{{ raise_exception('no') }}
---
{{ 1 / 0 }}
---
{% if t %}
---
{% endif %}
---
{{ 'abc
---
{{ a[ }}
---
{{ (1 }}
---
{% for in a %}{% endfor %}
---
{{ s.__class__ }}x
---
{% set x.y = 1 %}
---
{{ range(1000000) | list | length }}
---
{{ '%s' | string }} {{ [none, missing is defined] }} {{ [[], {}, ''] }} {{ 'tab\there' }} {{ ['tab\t', 'é', '\x7f'] }}
---
{{ messages[0].content }}{%- for q in m -%} {{ q.role }} {%- endfor -%} end
---
line
    {% set y = 1 %}
    text {% set z = 2 %}
{{ y }}
{{ z }}
   {#- c -#}
 tail
"""


def in_order(value):
    """The keys of objects sorted, as the program reads JSON."""
    return json.loads(json.dumps(value, sort_keys=True))


def tokenizer():
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **SPECIAL)


def attempt(render):
    try:
        return render()
    except Exception as error:
        print("  refused:", type(error).__name__, str(error)[:90])
        return None


def main():
    utils.datetime = FixedTime
    reference = tokenizer()
    conversations = in_order(json.loads((HERE / "conversations.json").read_text()))
    expected = {}
    for path in sorted((HERE / "templates").glob("*.jinja")):
        template = path.read_text()
        for name, messages in conversations.items():
            for prompt in (False, True):
                tools = in_order(TOOLS) if name == "tool_call" else None
                print(path.stem, name)
                expected.setdefault(path.stem, {}).setdefault(name, {})["prompt" if prompt else "plain"] = attempt(
                    lambda: reference.apply_chat_template(messages, tools=tools, chat_template=template,
                                                          add_generation_prompt=prompt, tokenize=False))
    (HERE / "expected.json").write_text(json.dumps({"special": SPECIAL, "now": int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp()),
                                                    "tools": TOOLS, "texts": expected}, indent=1, ensure_ascii=False) + "\n")
    snippets = []
    for source in SNIPPETS.removeprefix("\n").removesuffix("\n").split("\n---\n"):
        print(repr(source)[:60])
        text = attempt(lambda: reference.apply_chat_template([{"role": "user", "content": "hi"}], chat_template=source,
                                                             tokenize=False, **in_order(VARIABLES)))
        snippets.append({"template": source, "text": text})
    (HERE / "snippets.json").write_text(json.dumps({"variables": VARIABLES, "snippets": snippets}, indent=1, ensure_ascii=False) + "\n")


main()
