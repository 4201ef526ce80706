// The row graphs in ONNX Runtime on a device, with tensors that stay where they are from call to call (ort_device/graphs.py).
//
// A call is one call of a graph, which takes the rows' states out of the pools' lines and puts what it makes into them. Pools
// and caches are input and output both, which writes them in place.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "engine/graphs.hpp"
#include "engine/ort_device.hpp"

namespace mythos::engine {

// States on a device; who has halted, and after how many loops, is known on the host, too. Positions that enter and leave are
// written and read by the row graphs themselves: `begin` and `answers` are the host's.
class DeviceStates : public States {
 public:
  DeviceStates(const LoopSpec& spec, std::int64_t lines, std::shared_ptr<LineGraphs> graphs);

  bool halted(std::int64_t line) const override { return halted_[static_cast<std::size_t>(line)]; }
  std::int32_t depth(std::int64_t line) const override { return depth_[static_cast<std::size_t>(line)]; }
  void grow(std::int64_t lines) override;
  Lines copy(const Lines& lines) override;
  // Lines of nobody, for new positions (OutOfStates).
  Lines fresh(std::int64_t count);
  // What a call made of these lines: pairs of whether it has halted, and after how many loops.
  void saw(const Lines& lines, const std::int32_t* seen);

 private:
  std::vector<bool> halted_;
  std::vector<std::int32_t> depth_;
};

class DeviceGraphs : public Graphs {
 public:
  // `open`: the row graphs on lines (`rows_on_lines`), by the row graph's name. `memory`: whose pages (of the pools of
  // `lines`) and states (`DeviceStates`) the calls read and write. `most_rows`: of a call.
  DeviceGraphs(std::shared_ptr<const LoopSpec> spec, const OpenGraph& open, const LineGraphs& lines, const Memory& memory,
               std::int64_t most_rows);

  void bind(const Memory& memory) override;
  Lines enter(States& states, const std::vector<std::int64_t>& ids, const float* initial, const Spans& spans,
              const Tables& tables) override;
  std::int64_t step(States& states, const Lines& lines, const Spans& spans, const LoopTables& tables) override;
  const float* leave(States& states, const Lines& lines, const std::vector<bool>& early, const std::vector<std::int64_t>& pick,
                     const Spans& spans, const Tables& tables) override;

 private:
  using Key = std::tuple<std::string, std::int64_t, std::int64_t, std::int64_t>;  // graph, rows, blocks of a table, answers
  struct Frame {
    Numbers numbers;
    Bound bound;
  };
  Frame& frame(const std::string& graph, const Spans& spans, std::int64_t rows, std::int64_t wanted = 0);
  Frame make(const Key& key);
  void put_place(Frame& frame, const Spans& spans, const Tables& tables) const;

  std::map<std::string, Ports> ports_;
  std::map<std::string, std::shared_ptr<OrtSession>> sessions_;
  std::shared_ptr<OrtDevice> device_;
  std::int64_t before_ = 0;  // slots of the cache around the loop that are filled before it
  const PagedCache *around_ = nullptr, *loop_ = nullptr;
  const States* states_ = nullptr;
  std::vector<float> logits_;
  bool stepping_ = false;  // a step has begun, and replaced some of its states at most: none follows one that failed
  std::map<Key, Frame> frames_;
  std::vector<Key> order_;  // in which the frames were used
};

}  // namespace mythos::engine
