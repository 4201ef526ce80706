// Runs schedules that the parity tests deal: `mythos_schedule FOLDER THREADS ROWS AROUND_PAGES LOOP_PAGES LINES [device]`.
//
// FOLDER holds spec.json and the three row graphs; for `device`, where the CPU's memory is a device's, also the graphs that
// move lines. Every line of stdin is a schedule, every line of stdout what came of it;
// tests/mythos_runtime_cpp/schedules.py says what they hold.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>

#include <nlohmann/json.hpp>

#include "engine/device_graphs.hpp"
#include "engine/engine.hpp"
#include "fields.hpp"
#include "line_ports.hpp"
#include "memory.hpp"
#include "ports.hpp"
#include "recorded.hpp"
#include "row_ports.hpp"
#include "spec.hpp"

namespace {

using mythos::engine::cache_of;
using mythos::engine::Recorded;
using mythos::engine::Sequence;
using nlohmann::json;

// Always as many drafts as there is use for, up to a number: what pays is different at every run.
class AsAsked : public mythos::engine::Speculation {
 public:
  AsAsked(std::int64_t depth, std::int64_t drafts) : Speculation(depth, depth), drafts_(drafts) {}
  std::pair<std::int64_t, std::int64_t> choose(std::int64_t, std::int64_t room) override {
    return {depths()[0], std::min(drafts_, room)};
  }

 private:
  std::int64_t drafts_;
};

json bits_of(const std::vector<float>& values) {
  std::vector<std::int32_t> bits(values.size());
  std::memcpy(bits.data(), values.data(), values.size() * sizeof(float));
  return bits;
}

template <typename Value>
std::optional<Value> optional(const json& from, const char* name) {
  if (!from.contains(name) || from.at(name).is_null()) return std::nullopt;
  return from.at(name).get<Value>();
}

mythos::Request request_of(const json& from) {
  mythos::Request request;
  request.prompt = from.at("prompt").get<std::vector<std::int64_t>>();
  request.max_new_tokens = from.at("max_new_tokens");
  request.max_loops = optional<std::int64_t>(from, "max_loops");
  request.halt_threshold = optional<double>(from, "halt_threshold");
  request.policy = from.at("policy");
  request.sampling.temperature = from.at("temperature");
  request.sampling.seed = from.at("seed");
  request.eos = from.at("eos").get<std::vector<std::int64_t>>();
  request.stop = from.at("stop").get<std::vector<std::vector<std::int64_t>>>();
  request.row = from.at("row");
  request.state_seed = from.at("state_seed");
  request.depths = from.at("depths").get<std::vector<std::int64_t>>();
  if (const auto loops = optional<double>(from, "loops_per_token")) request.budget = mythos::Budget{*loops, {}};
  return request;
}

class Driver {
 public:
  Driver(const std::string& folder, int threads, std::int64_t rows, std::int64_t around_pages, std::int64_t loop_pages,
         std::int64_t lines, bool on_device) {
    std::ifstream file(folder + "/spec.json", std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const mythos::Json document = mythos::parse_json(text, "spec.json");
    auto spec = std::make_shared<const mythos::LoopSpec>(mythos::read_spec(mythos::Fields(document, "spec.json")));
    if (const std::string problem = mythos::row_contradiction(*spec); !problem.empty()) throw mythos::BundleError(problem);
    mythos::LoadOptions load;
    load.threads = threads, load.provider = "cpu";
    const auto open_lines = [&](const std::string& graph, const mythos::Ports& ports) {
      return std::shared_ptr<mythos::OrtSession>(
          mythos::open_graph(folder + "/" + mythos::move_file(graph), ports, load, mythos::Role::kLines));
    };
    const auto moving = on_device ? std::make_shared<mythos::engine::LineGraphs>(open_lines) : nullptr;
    mythos::engine::MakeLines make = mythos::engine::host_lines;
    if (moving) make = mythos::engine::LineGraphs::pools(moving);
    mythos::engine::Memory memory;
    for (const mythos::CacheGroup& group : spec->caches)
      (group.per_loop ? memory.loop : memory.around) = cache_of(group, group.per_loop ? loop_pages : around_pages, make);
    if (moving)
      memory.states = std::make_unique<mythos::engine::DeviceStates>(*spec, lines, moving);
    else
      memory.states = std::make_unique<mythos::engine::States>(*spec, lines);
    memory.states->freed = [states = memory.states.get(), spec](std::int64_t line) { poison(*states, *spec, line); };
    const auto open = [&](const std::string& graph) {
      if (graph == mythos::kLoops && !std::ifstream(folder + "/loops.onnx")) return std::shared_ptr<mythos::OrtSession>();
      if (moving)
        return std::shared_ptr<mythos::OrtSession>(mythos::open_graph(
            folder + "/" + mythos::rows_file(graph), mythos::rows_on_lines(*spec).at(graph), load, mythos::Role::kModel));
      const mythos::Ports& step = spec->graphs.at(mythos::kStep);
      const mythos::Ports ports = graph == mythos::kLoops ? mythos::loop_ports(step) : spec->graphs.at(graph);
      return std::shared_ptr<mythos::OrtSession>(
          mythos::open_graph(folder + "/" + graph + ".onnx", ports, load, mythos::Role::kModel));
    };
    std::unique_ptr<mythos::engine::Graphs> run;
    if (moving)
      run = std::make_unique<mythos::engine::DeviceGraphs>(spec, open, *moving, memory, rows);
    else
      run = std::make_unique<mythos::engine::RowGraphs>(spec, open, memory, rows, spec->max_seq_len);
    if (moving && moving->device->calls) throw std::logic_error("opening called a graph");
    if (moving) device_ = moving->device;
    auto graphs = std::make_unique<Recorded>(std::move(run));
    recorded_ = graphs.get();
    core_ = std::make_unique<mythos::engine::Core>(std::move(graphs), std::move(memory));
  }

  json run(const json& schedule) {
    recorded_->reset(core_->opened);
    core_->steps = core_->rows = core_->late = 0;
    if (device_) device_->calls = device_->uploads = device_->downloads = 0;
    json result = schedule.contains("acts") ? acts(schedule) : serve(schedule);
    result["trace"] = recorded_->trace;
    if (device_) result["device"] = {device_->calls, device_->uploads, device_->downloads};
    result["steps"] = core_->steps, result["rows"] = core_->rows, result["late"] = core_->late;
    while (!core_->sequences.empty()) core_->close(*core_->sequences.back());
    result["idle"] = (!core_->around || core_->around->free() == core_->around->pages()) &&
                     core_->loop->free() == core_->loop->pages() && core_->states->free() == core_->states->lines();
    return result;
  }

 private:
  // Requests through the engine.
  json serve(const json& schedule) {
    mythos::engine::Table taken;  // pages that somebody else holds
    core_->loop->extend(taken, 0, schedule.at("taken").get<std::int64_t>() * mythos::kPage - 1);
    const auto states = schedule.at("taken_states").get<std::size_t>();
    const mythos::engine::Lines lines = core_->states->copy(mythos::engine::Lines(states, 0));
    core_->max_lag = optional<std::int64_t>(schedule, "max_lag");
    core_->scheduler.rows = schedule.at("scheduler_rows");
    recorded_->broken = schedule.value("broken", -1);
    mythos::EngineOptions options;
    options.most_running = schedule.at("most_running"), options.chunk = schedule.at("chunk");
    options.patience = schedule.at("patience"), options.prefixes = schedule.at("prefixes");
    options.loops_per_call = optional<std::int64_t>(schedule, "loops_per_call");
    std::unique_ptr<AsAsked> speculation;
    if (const auto depth = optional<std::int64_t>(schedule, "speculate"))
      speculation = std::make_unique<AsAsked>(*depth, schedule.at("drafts").get<std::int64_t>());
    mythos::engine::Engine engine(*core_, options, speculation.get());
    const json &requests = schedule.at("requests"), &arrivals = schedule.at("arrivals"), &cancels = schedule.at("cancels");
    std::vector<std::shared_ptr<const mythos::Running>> running(requests.size());
    std::map<const mythos::Running*, json> logits;
    std::size_t come = 0;
    for (int tick = 0; come < requests.size() || engine.busy(); ++tick) {
      for (std::size_t i = 0; i < requests.size(); ++i)
        if (arrivals[i] == tick) running[i] = engine.submit(request_of(requests[i])), ++come;
      for (const json& cancel : cancels)
        if (cancel[1] == tick && running[cancel[0]]) engine.cancel(running[cancel[0]]);
      for (const mythos::Token& token : engine.tick()) logits[token.running.get()].push_back(bits_of(token.logits));
      recorded_->trace.push_back(tick);
    }
    json results = json::array();
    for (const auto& each : running)
      results.push_back({{"tokens", each->tokens}, {"depth", each->depth}, {"finished", each->finished},
                         {"error", each->error}, {"reused", each->reused}, {"capped", each->capped},
                         {"logits", logits[each.get()]}});
    json drafts = speculation ? json{speculation->drafted, speculation->accepted} : json();
    engine.close();
    core_->loop->truncate(taken, 0);
    core_->states->end(lines.begin(), lines.end());
    core_->max_lag.reset();
    core_->scheduler.rows = core_->graphs->most_rows;
    return {{"requests", results}, {"drafts", drafts}};
  }

  // Sequences at the core: given a past, fed, forked, cut, closed.
  json acts(const json& schedule) {
    std::vector<Sequence*> known;
    json answers = json::array();
    for (const json& act : schedule.at("acts")) {
      const std::string name = act.at("act");
      if (name == "open") {
        known.push_back(&core_->open(act.at("limit"), act.at("threshold")));
      } else if (name == "past") {
        fill_far(*core_, *known[act.at("sequence")], act.at("length"));
      } else if (name == "fork") {
        known.push_back(&core_->fork(*known[act.at("sequence")]));
      } else if (name == "truncate") {
        core_->truncate(*known[act.at("sequence")], act.at("length"));
      } else if (name == "close") {
        core_->close(*known[act.at("sequence")]);
      } else {
        std::vector<mythos::engine::Chunk> chunks;
        std::vector<Sequence*> fed;
        for (const json& chunk : act.at("chunks")) {
          fed.push_back(known[chunk[0]]);
          chunks.push_back({fed.back(), chunk[1].get<std::vector<std::int64_t>>()});
        }
        core_->enter(chunks);
        while (core_->step(fed).size() < fed.size()) continue;
        std::vector<mythos::engine::Leaving> leaving;
        for (Sequence* sequence : fed) leaving.push_back({sequence, true});
        for (const auto& answer : core_->leave(leaving))
          answers.push_back({{"logits", bits_of(answer.logits)}, {"depth", answer.depth}});
      }
    }
    return {{"answers", answers}};
  }

  Recorded* recorded_;
  std::unique_ptr<mythos::engine::Core> core_;
  std::shared_ptr<mythos::engine::OrtDevice> device_;  // null on the host
};

}  // namespace

int main(int count, char** values) {
  const bool on_device = count == 8 && std::string(values[7]) == "device";
  if (count != 7 && !on_device) return 2;
  try {
    const auto number = [&](int at) { return std::stoll(values[at]); };
    Driver driver(values[1], static_cast<int>(number(2)), number(3), number(4), number(5), number(6), on_device);
    for (std::string line; std::getline(std::cin, line);) std::cout << driver.run(json::parse(line)) << std::endl;
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 3;
  }
}
