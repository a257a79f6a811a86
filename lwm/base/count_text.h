#pragma once

#include <cstdint>
#include <string>

namespace lwm {

// "950", "12.3K", "5.52M", "25.92G", "1.20T": powers of a thousand, for people.
std::string ShortCount(double value);

// "512", "4K", "1M": tokens in powers of 1024 where they are whole ones.
std::string ShortTokens(int64_t tokens);

}  // namespace lwm
