// The engine as callers have it (mythos_engine.hpp).
#include <map>
#include <mutex>

#include "batch.hpp"
#include "engine/engine.hpp"
#include "engine/opening.hpp"
#include "engine/row_cache.hpp"
#include "files.hpp"
#include "model.hpp"
#include "row_ports.hpp"

namespace mythos {

struct Engine::Parts {
  // `grows`: the pool's memory does, with what requests claim of it.
  Parts(std::shared_ptr<engine::Pool> given, std::shared_ptr<engine::Speculation> drafting, const EngineOptions& options, bool grows)
      : pool(std::move(given)), speculation(std::move(drafting)), grows(grows),
        engine(std::make_unique<engine::Engine>(*pool->core, options, speculation.get())) {}
  ~Parts() {
    const Turn turn(pool->turn);
    engine->close();
  }
  Parts(const Parts&) = delete;
  Parts& operator=(const Parts&) = delete;

  using Turn = std::lock_guard<std::recursive_mutex>;

  // Gives back what ended requests have claimed.
  void release() {
    for (auto claim = claims.begin(); claim != claims.end();)
      claim = claim->first->finished.empty() ? std::next(claim) : claims.erase(claim);
  }

  const std::shared_ptr<engine::Pool> pool;
  const std::shared_ptr<engine::Speculation> speculation;
  const bool grows;
  std::map<std::shared_ptr<const Running>, std::unique_ptr<engine::Claim>> claims;
  std::unique_ptr<engine::Engine> engine;
};

namespace {

// What a request may need; nothing of one that is too long, which `submit` refuses.
engine::Room room_of(const Request& request, const engine::Core& core) {
  const std::int64_t limit = integer(request.max_loops.value_or(core.spec().trained_loops), "max_loops", 0, kMostLoops);
  const auto lagging = core.most_states(engine::policy_of(request.policy), core.graphs->most_rows);
  const std::int64_t prompt = static_cast<std::int64_t>(request.prompt.size());
  const std::int64_t positions = engine::saturated_sum(prompt, integer(request.max_new_tokens, "max_new_tokens", 1) - 1);
  if (positions > core.spec().max_seq_len) return {};
  return engine::Room::of(1, positions, std::max<std::int64_t>(limit, 1), lagging);
}

}  // namespace

Engine::Engine(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

Engine Engine::open(const std::string& bundle, const LoadOptions& load, const EngineOptions& options) {
  check_options(load);
  const std::string folder = plain_path(bundle);
  const Manifest manifest = read_manifest(folder, load.verify == "hashes");
  auto core = engine::make_core(manifest.spec, engine::open_rows(folder, manifest, load), options);
  auto drafting = engine::speculation_of(options.speculate, manifest.spec->trained_loops);
  return Engine(std::make_unique<Parts>(std::make_shared<engine::Pool>(std::move(core)), std::move(drafting), options, false));
}

Engine Engine::of(Model& model, const EngineOptions& options) {
  auto pool = model.parts_->rows();
  if (!pool) throw RequestError("this model runs no row graphs, which the engine needs (" + model.description() + ")");
  if (options.prefixes) throw RequestError("an engine on a loaded model keeps nothing of ended requests: prefixes should be 0");
  const Parts::Turn turn(pool->turn);
  auto& drafting = model.parts_->learnt[options.speculate];
  if (!drafting) drafting = engine::speculation_of(options.speculate, model.spec().trained_loops);
  return Engine(std::make_unique<Parts>(std::move(pool), drafting, options, true));
}

const LoopSpec& Engine::spec() const { return parts_->pool->core->spec(); }

std::shared_ptr<const Running> Engine::submit(Request request) {
  const Parts::Turn turn(parts_->pool->turn);
  if (!parts_->grows) return parts_->engine->submit(std::move(request));
  auto claim = std::make_unique<engine::Claim>(parts_->pool, room_of(request, *parts_->pool->core));
  auto running = parts_->engine->submit(std::move(request));
  parts_->claims.emplace(running, std::move(claim));
  return running;
}

void Engine::cancel(const std::shared_ptr<const Running>& running) {
  const Parts::Turn turn(parts_->pool->turn);
  parts_->engine->cancel(running);
  parts_->release();
}

bool Engine::busy() const { return parts_->engine->busy(); }

std::vector<Token> Engine::tick() {
  const Parts::Turn turn(parts_->pool->turn);
  auto tokens = parts_->engine->tick();
  parts_->release();
  return tokens;
}

EngineCounts Engine::counts() const {
  const Parts::Turn turn(parts_->pool->turn);
  const auto& [core, drafts] = std::tie(*parts_->pool->core, parts_->speculation);
  return {core.steps, core.rows, core.late, drafts ? drafts->drafted : 0, drafts ? drafts->accepted : 0};
}

EngineUsage Engine::usage() const {
  const Parts::Turn turn(parts_->pool->turn);
  const engine::Core& core = *parts_->pool->core;
  const engine::Engine& engine = *parts_->engine;
  EngineUsage usage{engine.running(), engine.waiting(), 0, 0, core.states->lines(), core.states->free(), engine.kept()};
  for (const engine::PagedCache* cache : {core.around, core.loop})
    if (cache) usage.pages += cache->pages(), usage.pages_free += cache->free();
  return usage;
}

std::int64_t Engine::pages_running() const {
  const Parts::Turn turn(parts_->pool->turn);
  return parts_->engine->pages_running();
}

}  // namespace mythos
