#include "lwm/jinja/template.h"

#include <utility>

#include "lwm/jinja/evaluator.h"
#include "lwm/jinja/parser.h"

namespace lwm::jinja {

Template::Template(std::string_view source, std::string where)
    : where_(std::move(where)), block_(ParseTemplate(source, where_)) {}

Text Template::Render(const Variables& variables, const RenderOptions& options) const {
  return Evaluator(where_, variables, options).Run(block_);
}

}  // namespace lwm::jinja
