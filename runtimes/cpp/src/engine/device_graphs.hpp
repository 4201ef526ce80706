// The row graphs in ONNX Runtime on a device, with tensors that stay bound from call to call (ort_device/graphs.py).
//
// A call of the step is three graphs: lines of the states are taken into a batch, the step runs on it, and what it makes is
// put back. The caches are bound as input and output both, which appends in place.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "engine/graphs.hpp"
#include "engine/ort_device.hpp"

namespace mythos::engine {

// States on a device; who has halted, and after how many loops, is known on the host, too.
class DeviceStates : public States {
 public:
  DeviceStates(const LoopSpec& spec, std::int64_t lines, std::shared_ptr<LineGraphs> graphs);

  bool halted(std::int64_t line) const override { return halted_[static_cast<std::size_t>(line)]; }
  std::int32_t depth(std::int64_t line) const override { return depth_[static_cast<std::size_t>(line)]; }
  void grow(std::int64_t lines) override;
  Lines begin(const std::vector<std::int64_t>& ids, const float* encoded, const float* initial) override;
  Lines copy(const Lines& lines) override;
  // The rows' tokens are taken with them, into the graphs' `rows`.
  const float* answers(const Lines& lines, const std::vector<bool>& early) override;
  // What a call made of these lines.
  void saw(const Lines& lines, const std::vector<char>& halted, const std::vector<std::int32_t>& depth);

 private:
  struct Frame {
    Numbers numbers;
    Bound bound;
  };
  Frame& beginning(std::int64_t count, char* encoded);
  Frame& leaving(std::int64_t count);

  std::shared_ptr<LineGraphs> graphs_;
  std::map<std::string, std::shared_ptr<char>> constant_;  // of states that begin with zeros or ones
  std::vector<bool> halted_;
  std::vector<std::int32_t> depth_;
  std::map<std::pair<std::int64_t, char*>, Frame> beginnings_;
  std::map<std::int64_t, Frame> leavings_;
};

class DeviceGraphs : public Graphs {
 public:
  // `memory`: whose pages (of the lines' pools) and states (`DeviceStates`) the calls read and write. `most_rows`: of a
  // call, no more than those of `lines`.
  DeviceGraphs(std::shared_ptr<const LoopSpec> spec, const OpenGraph& open, std::shared_ptr<LineGraphs> lines,
               const Memory& memory, std::int64_t most_rows);

  void bind(const Memory& memory) override;
  const float* enter(const std::vector<std::int64_t>& ids, const Spans& spans, const Tables& tables) override;
  std::int64_t step(States& states, const Lines& lines, const Spans& spans, const LoopTables& tables) override;
  const float* leave(const States& states, const Lines& lines, const float* answers, const std::vector<std::int64_t>& pick,
                     const Spans& spans, const Tables& tables) override;

 private:
  // Graph, rows, blocks of a table, answers that are wanted, and where what leaves is.
  using Key = std::tuple<std::string, std::int64_t, std::int64_t, std::int64_t, const float*>;
  struct Frame {
    Numbers numbers;
    std::vector<Bound> bound;
    void run();
  };
  Frame& frame(const std::string& graph, const Spans& spans, std::int64_t rows, std::int64_t wanted = 0,
               const float* answers = nullptr);
  Frame make(const Key& key);
  char* address(const Port& port, const float* answers) const;
  void put_place(Frame& frame, const Spans& spans, const Tables& tables) const;

  std::map<std::string, std::shared_ptr<OrtSession>> sessions_;
  std::shared_ptr<LineGraphs> lines_;
  std::int64_t before_ = 0;  // slots of the cache around the loop that are filled before it
  const PagedCache *around_ = nullptr, *loop_ = nullptr;
  const States* states_ = nullptr;
  std::shared_ptr<char> encoded_;
  std::vector<float> logits_;
  std::vector<char> halted_;
  std::vector<std::int32_t> depth_;
  std::map<Key, Frame> frames_;
  std::vector<Key> order_;  // in which the frames were used
};

}  // namespace mythos::engine
