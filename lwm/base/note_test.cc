#include "lwm/base/note.h"

#include <gtest/gtest.h>

namespace lwm {
namespace {

TEST(NoteTest, EachTextIsSaidOnceAndNoneWhenSilenced) {
  testing::internal::CaptureStderr();
  Note("took a\nprefix off");
  Note("another");
  Note("took a\nprefix off");
  SilenceNotes();
  Note("of another rank");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "note: took a?prefix off\nnote: another\n");
}

}  // namespace
}  // namespace lwm
