#include "lwm/data/tokenizer_settings.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::data {
namespace {

using testing_support::TemporaryFolder;

std::string MessageOf(const std::function<void()>& act) {
  try {
    act();
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
    return error.what();
  }
}

TokenizerSettings SettingsOf(const std::map<std::string, std::string>& files) {
  const TemporaryFolder folder;
  for (const auto& [name, content] : files) {
    std::filesystem::create_directories((folder / name).parent_path());
    WriteFileAtomically(folder / name, content);
  }
  return ReadTokenizerSettings(folder.path());
}

TEST(TokenizerSettingsTest, AFolderWithoutFilesSaysNothing) {
  const TokenizerSettings settings = SettingsOf({});
  EXPECT_EQ(settings.bos_token, "");
  EXPECT_FALSE(settings.add_bos || settings.add_eos || settings.add_prefix_space);
  EXPECT_TRUE(settings.added.empty() && settings.files.empty());
  EXPECT_EQ(settings.chat_template(), "");
}

TEST(TokenizerSettingsTest, NamesAndFlagsAreThoseOfTheConfig) {
  const TokenizerSettings settings = SettingsOf({{"tokenizer_config.json",
                                                  R"({"bos_token": "<s>",
      "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null, "add_bos_token": false,
      "add_eos_token": true, "legacy": false, "add_prefix_space": null})"}});
  EXPECT_EQ(settings.bos_token, "<s>");
  EXPECT_EQ(settings.eos_token, "</s>");
  EXPECT_EQ(settings.pad_token, "");
  EXPECT_EQ(settings.add_bos, false);
  EXPECT_EQ(settings.add_eos, true);
  EXPECT_EQ(settings.legacy, false);
  EXPECT_FALSE(settings.add_prefix_space.has_value());
  EXPECT_TRUE(settings.files.contains("tokenizer_config.json"));
}

TEST(TokenizerSettingsTest, AddedTokensComeFromBothFilesInOrderOfTheirIds) {
  const TokenizerSettings settings =
      SettingsOf({{"added_tokens.json", R"({"<b>": 12, "<a>": 11, "<x>": 10})"},
                  {"special_tokens_map.json", R"({"additional_special_tokens": ["<a>"]})"},
                  {"tokenizer_config.json", R"({"added_tokens_decoder": {"10": {"content": "<y>",
          "lstrip": true, "rstrip": true, "single_word": true, "special": true}}})"}});
  ASSERT_EQ(settings.added.size(), 3U);
  EXPECT_EQ(settings.added[0].content, "<y>");
  EXPECT_TRUE(settings.added[0].special && settings.added[0].lstrip && settings.added[0].rstrip &&
              settings.added[0].single_word);
  EXPECT_EQ(settings.added[1].content, "<a>");
  EXPECT_TRUE(settings.added[1].special);
  EXPECT_EQ(settings.added[2].id, 12);
  EXPECT_FALSE(settings.added[2].special);
}

TEST(TokenizerSettingsTest, TheOlderFormNamesItsTokensInTheMap) {
  const std::string map = R"({"eos_token": "<|im_end|>"})";
  EXPECT_EQ(SettingsOf({{"special_tokens_map.json", map},
                        {"tokenizer_config.json", R"({"eos_token": "</s>"})"}})
                .eos_token,
            "<|im_end|>");
  EXPECT_EQ(SettingsOf(
                {{"special_tokens_map.json", map},
                 {"tokenizer_config.json", R"({"eos_token": "</s>", "added_tokens_decoder": {}})"}})
                .eos_token,
            "</s>");
}

TEST(TokenizerSettingsTest, TemplatesComeFromTheConfigAndFromFiles) {
  EXPECT_EQ(
      SettingsOf({{"tokenizer_config.json", R"({"chat_template": "{{ a }}"})"}}).chat_template(),
      "{{ a }}");
  const TokenizerSettings settings = SettingsOf(
      {{"tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "1"},
                                                       {"name": "rag", "template": "2"}]})"},
       {"chat_template.jinja", "3"},
       {"additional_chat_templates/tools.jinja", "4"}});
  EXPECT_EQ(settings.chat_template(), "3");
  EXPECT_EQ(settings.chat_templates.at("rag"), "2");
  EXPECT_EQ(settings.chat_templates.at("tools"), "4");
  EXPECT_EQ(settings.files.at("additional_chat_templates/tools.jinja"), "4");
}

TEST(TokenizerSettingsTest, WhatWouldChangeIdsAndIsNotKnownIsRefusedByName) {
  for (const auto& [content, name] : std::vector<std::pair<std::string, std::string>>{
           {R"({"do_lower_case": true})", "do_lower_case"},
           {R"({"sp_model_kwargs": {"enable_sampling": true}})", "sp_model_kwargs"},
           {R"({"auto_map": {"AutoTokenizer": ["a.B", null]}})", "auto_map"},
           {R"({"add_bos_token": "yes"})", "add_bos_token"},
           {R"({"bos_token": 1})", "bos_token"},
           {R"({"added_tokens_decoder": {"x": {"content": "<a>"}}})", "added_tokens_decoder"},
           {R"({"added_tokens_decoder": {"7": {}}})", "content"},
           {R"({"added_tokens_decoder": []})", "added_tokens_decoder"},
           {R"([])", "object"}}) {
    const std::string message = MessageOf([&] {
      SettingsOf({{"tokenizer_config.json", content}});
    });
    EXPECT_NE(message.find(name), std::string::npos) << content << ": " << message;
    EXPECT_NE(message.find("tokenizer_config.json"), std::string::npos) << message;
  }
  EXPECT_NE(MessageOf([] {
              SettingsOf({{"added_tokens.json", R"({"<a>": "x"})"}});
            }).find("<a>"),
            std::string::npos);
  SettingsOf({{"tokenizer_config.json", R"({"do_lower_case": false, "sp_model_kwargs": {},
     "model_max_length": 1000, "clean_up_tokenization_spaces": true, "a note": "x"})"}});
}

}  // namespace
}  // namespace lwm::data
