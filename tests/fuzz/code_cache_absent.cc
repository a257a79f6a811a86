// The cache of codes where there is no LibTorch to encode media with: every request is refused.
#include "lwm/base/error.h"
#include "lwm/data/code_cache.h"

namespace lwm::data {

std::vector<int32_t> CodeCache::Codes(const MediaRequest& request) {
  throw Error(ErrorCode::kNotFound, Cat("no VQGAN to encode ", request.path.string()));
}

}  // namespace lwm::data
