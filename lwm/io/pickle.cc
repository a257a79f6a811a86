#include "lwm/io/pickle.h"

#include <bit>

#include "lwm/base/error.h"
#include "lwm/io/byte_reader.h"

namespace lwm::io {
namespace {

using Kind = PickleValue::Kind;

// One opcode of one byte makes a value of many: both time and memory need a bound of their own.
constexpr size_t kMaxOpcodes = 8'000'000;
constexpr size_t kMaxValues = 1'000'000;

enum Op : uint8_t {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kNone = 'N',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kBinFloat = 'G',
  kBinUnicode = 'X',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kEmptyTuple = ')',
  kEmptyList = ']',
  kEmptyDict = '}',
  kTuple = 't',
  kAppend = 'a',
  kAppends = 'e',
  kSetItem = 's',
  kSetItems = 'u',
  kGlobal = 'c',
  kReduce = 'R',
  kBuild = 'b',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kBinPersId = 'Q',
  kProto = 0x80,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinBytes8 = 0x8e,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
  kByteArray8 = 0x96,
};

}  // namespace

// The stack machine: one method per group of opcodes. Values are kept in a deque and named by id:
// references to them stay valid while others are made, and a value that the memo repeats is shared,
// not copied. A list may so contain itself; interpreters of the values bound their depth and the
// number of visits.
class PickleMachine {
 public:
  using Allowed = std::function<bool(std::string_view, std::string_view)>;
  PickleMachine(Pickle& pickle, std::span<const std::byte> bytes, const Allowed& allowed)
      : pickle_(pickle), allowed_(allowed), in_(bytes, pickle.where_) {}

  PickleId Run() {
    const bool has_protocol = in_.remaining() > 1 && in_.Number<uint8_t>() == kProto;
    in_.Require(has_protocol, "not a pickle of protocol 2 to 5");
    const auto protocol = in_.Number<uint8_t>();
    in_.Require(protocol >= 2 && protocol <= 5, "pickle protocol ", int{protocol});
    for (size_t i = 0; i < kMaxOpcodes; ++i) {
      const auto op = in_.Number<uint8_t>();
      if (op == kStop) return Pop();
      if (!Literal(op) && !Container(op) && !Memory(op)) Object(op);
    }
    in_.Fail("pickle is too long");
  }

 private:
  PickleValue& New(Kind kind) {
    in_.Require(pickle_.values_.size() < kMaxValues, "pickle holds too many values");
    stack_.push_back(static_cast<PickleId>(pickle_.values_.size()));
    PickleValue& value = pickle_.values_.emplace_back();
    value.kind = kind;
    return value;
  }
  PickleId Pop() {
    // Never below the last mark, so that PopToMark finds the stack at least as long as at the mark.
    const bool above_mark = stack_.size() > (marks_.empty() ? 0 : marks_.back());
    in_.Require(above_mark, "pickle takes a value from an empty stack");
    const PickleId id = stack_.back();
    stack_.pop_back();
    return id;
  }
  PickleValue& Top() {
    const PickleId id = Pop();
    stack_.push_back(id);
    return pickle_.values_[id];
  }
  std::vector<PickleId> PopToMark() {
    in_.Require(!marks_.empty(), "pickle has no mark to go back to");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<PickleId> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }

  void NewInt(int64_t integer) { New(Kind::kInt).integer = integer; }
  void NewText(Kind kind, uint64_t size) {
    const std::string_view text = in_.Text(size);
    New(kind).text = text;
  }
  void NewLong() {
    const auto size = in_.Number<uint8_t>();
    in_.Require(size <= 8, "pickle holds an integer beyond 64 bits");
    uint64_t bits = 0;
    unsigned shift = 0;
    for (const std::byte byte : in_.Bytes(size)) {
      bits |= static_cast<uint64_t>(byte) << shift;
      shift += 8;
    }
    if (size > 0 && size < 8 && (bits >> (shift - 1) & 1)) bits |= ~uint64_t{0} << shift;
    NewInt(static_cast<int64_t>(bits));
  }

  bool Literal(uint8_t op) {
    switch (op) {
      case kNone:
        New(Kind::kNone);
        return true;
      case kNewTrue:
        New(Kind::kBool).integer = 1;
        return true;
      case kNewFalse:
        New(Kind::kBool);
        return true;
      case kBinInt:
        NewInt(in_.Number<int32_t>());
        return true;
      case kBinInt1:
        NewInt(in_.Number<uint8_t>());
        return true;
      case kBinInt2:
        NewInt(in_.Number<uint16_t>());
        return true;
      case kLong1:
        NewLong();
        return true;
      case kBinFloat:
        New(Kind::kFloat).number = std::bit_cast<double>(in_.BigEndian<uint64_t>());
        return true;
      case kShortBinUnicode:
        NewText(Kind::kText, in_.Number<uint8_t>());
        return true;
      case kBinUnicode:
        NewText(Kind::kText, in_.Number<uint32_t>());
        return true;
      case kBinUnicode8:
        NewText(Kind::kText, in_.Number<uint64_t>());
        return true;
      case kShortBinBytes:
        NewText(Kind::kBytes, in_.Number<uint8_t>());
        return true;
      case kBinBytes:
        NewText(Kind::kBytes, in_.Number<uint32_t>());
        return true;
      case kBinBytes8:
      case kByteArray8:
        NewText(Kind::kBytes, in_.Number<uint64_t>());
        return true;
      default:
        return false;
    }
  }

  void NewTuple(size_t size) {
    std::vector<PickleId> items(size);
    for (size_t i = size; i-- > 0;) items[i] = Pop();
    New(Kind::kTuple).items = std::move(items);
  }
  void NewTupleToMark() {
    std::vector<PickleId> items = PopToMark();
    New(Kind::kTuple).items = std::move(items);
  }
  void Extend(const std::vector<PickleId>& items) {
    PickleValue& list = Top();
    in_.Require(list.kind == Kind::kList, "pickle appends to something that is not a list");
    list.items.insert(list.items.end(), items.begin(), items.end());
  }
  void SetItems(const std::vector<PickleId>& items) {
    PickleValue& dict = Top();
    in_.Require(dict.kind == Kind::kDict || dict.kind == Kind::kCall,
                "pickle sets an item of something that is not a dict");
    in_.Require(items.size() % 2 == 0, "pickle sets a key without a value");
    dict.items.insert(dict.items.end(), items.begin(), items.end());
  }
  void SetOneItem() {
    const PickleId value = Pop();
    const PickleId key = Pop();
    SetItems({key, value});
  }

  bool Container(uint8_t op) {
    switch (op) {
      case kMark:
        marks_.push_back(stack_.size());
        return true;
      case kEmptyTuple:
        New(Kind::kTuple);
        return true;
      case kEmptyList:
        New(Kind::kList);
        return true;
      case kEmptyDict:
        New(Kind::kDict);
        return true;
      case kTuple1:
        NewTuple(1);
        return true;
      case kTuple2:
        NewTuple(2);
        return true;
      case kTuple3:
        NewTuple(3);
        return true;
      case kTuple:
        NewTupleToMark();
        return true;
      case kAppend:
        Extend({Pop()});
        return true;
      case kAppends:
        Extend(PopToMark());
        return true;
      case kSetItem:
        SetOneItem();
        return true;
      case kSetItems:
        SetItems(PopToMark());
        return true;
      default:
        return false;
    }
  }

  void Get(uint64_t slot) {
    in_.Require(slot < memo_.size(), "pickle reads memo ", slot, " before it is set");
    stack_.push_back(memo_[slot]);
  }
  void Put(uint64_t slot) {
    Top();
    // In order, as picklers number them: a slot of four bytes cannot demand a memo of 2^32.
    in_.Require(slot <= memo_.size(), "pickle sets memo ", slot, " out of order");
    if (slot == memo_.size()) memo_.emplace_back();
    memo_[slot] = stack_.back();
  }

  bool Memory(uint8_t op) {
    switch (op) {
      case kFrame:
        in_.Number<uint64_t>();
        return true;
      case kPop:
        Pop();
        return true;
      case kBinGet:
        Get(in_.Number<uint8_t>());
        return true;
      case kLongBinGet:
        Get(in_.Number<uint32_t>());
        return true;
      case kBinPut:
        Put(in_.Number<uint8_t>());
        return true;
      case kLongBinPut:
        Put(in_.Number<uint32_t>());
        return true;
      case kMemoize:
        Put(memo_.size());
        return true;
      default:
        return false;
    }
  }

  std::string_view Line() {
    const size_t begin = in_.position();
    size_t size = 0;
    while (in_.Number<char>() != '\n') ++size;
    in_.Seek(begin);
    const std::string_view line = in_.Text(size);
    in_.Number<char>();
    return line;
  }
  void NewGlobal(std::string_view module, std::string_view name) {
    // The name is compared with a list, never looked up: nothing of a pickle is executed.
    in_.Require(allowed_(module, name), "pickle asks for ", module.substr(0, 60), ".",
                name.substr(0, 60), ", which is not on this reader's list; nothing was executed");
    PickleValue& value = New(Kind::kGlobal);
    value.text = module;
    value.name = name;
  }
  std::string_view PopText() {
    const PickleValue& value = pickle_.values_[Pop()];
    in_.Require(value.kind == Kind::kText, "pickle names a global with something that is not text");
    return value.text;
  }
  void NewCall() {
    const PickleId arguments = Pop();
    const PickleId function = Pop();
    in_.Require(pickle_.values_[function].kind == Kind::kGlobal &&
                    pickle_.values_[arguments].kind == Kind::kTuple,
                "pickle calls something that is not a function");
    New(Kind::kCall).items = {function, arguments};
  }
  void SetState() {
    const PickleId state = Pop();
    PickleValue& object = Top();
    in_.Require(object.kind == Kind::kCall, "pickle sets the state of something not constructed");
    object.has_state = true;
    object.state = state;
  }

  void Object(uint8_t op) {
    switch (op) {
      case kGlobal: {
        const std::string_view module = Line();
        return NewGlobal(module, Line());
      }
      case kStackGlobal: {
        const std::string_view name = PopText();
        return NewGlobal(PopText(), name);
      }
      case kReduce:
        return NewCall();
      case kBuild:
        return SetState();
      case kBinPersId: {
        const PickleId id = Pop();
        New(Kind::kPersistent).items = {id};
        return;
      }
      default:
        in_.Fail("pickle opcode ", int{op}, " is not on this reader's list");
    }
  }

  Pickle& pickle_;
  const Allowed& allowed_;
  ByteReader in_;
  std::vector<PickleId> stack_, memo_;
  std::vector<size_t> marks_;
};

Pickle::Pickle(std::span<const std::byte> bytes, const std::string& where,
               const std::function<bool(std::string_view, std::string_view)>& allowed)
    : where_(where) {
  root_ = PickleMachine(*this, bytes, allowed).Run();
}

const PickleValue& Pickle::Expect(PickleId id, Kind kind, const char* what) const {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, values_[id].kind == kind, where_,
                 ": pickle holds something else where ", what, " belongs");
  return values_[id];
}

int64_t Pickle::Integer(PickleId id) const { return Expect(id, Kind::kInt, "an integer").integer; }

std::string_view Pickle::Text(PickleId id) const { return Expect(id, Kind::kText, "a text").text; }

std::vector<int64_t> Pickle::Integers(PickleId id) const {
  std::vector<int64_t> integers;
  const bool list = values_[id].kind == Kind::kList;
  for (const PickleId item : list ? std::span<const PickleId>(values_[id].items) : Tuple(id, 0))
    integers.push_back(Integer(item));
  return integers;
}

std::span<const PickleId> Pickle::Tuple(PickleId id, size_t least) const {
  const PickleValue& tuple = Expect(id, Kind::kTuple, "a tuple");
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, tuple.items.size() >= least, where_,
                 ": pickle tuple has ", tuple.items.size(), " elements, ", least, " wanted");
  return tuple.items;
}

std::span<const PickleId> Pickle::Entries(PickleId id) const {
  const PickleValue& value = values_[id];
  const std::span<const PickleId> items(value.items);
  return value.kind == Kind::kCall ? items.subspan(2) : Expect(id, Kind::kDict, "a dict").items;
}

bool Pickle::IsGlobal(PickleId id, std::string_view module, std::string_view name) const {
  const PickleValue& value = values_[id];
  return value.kind == Kind::kGlobal && value.text == module && value.name == name;
}

std::span<const PickleId> Pickle::CallOf(PickleId id, std::string_view module,
                                         std::string_view name, size_t least) const {
  const PickleValue& value = values_[id];
  if (value.kind != Kind::kCall || !IsGlobal(value.items[0], module, name)) return {};
  return Tuple(value.items[1], least);
}

}  // namespace lwm::io
