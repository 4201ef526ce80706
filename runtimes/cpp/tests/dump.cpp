// What the parity tests compare: `mythos_dump BUNDLE ROWS FILE [temperature seed tokens padding loops state]`, ROWS as
// 1,2,3;4,5; loops 0: as trained; state: a file of float32 [batch, tokens, size], the state before the first loop.
//
// Writes float32 logits of the padded rows into FILE, without a cache and then through a cache in two chunks, and
// prints one line of JSON with the generated tokens and depths, and as `forward_depth` those of the rows, at once.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>

#include <nlohmann/json.hpp>

#include "mythos_runtime.hpp"

int main(int count, char** values) {
  if (count < 4) return 2;
  try {
    std::vector<std::vector<std::int64_t>> rows;
    std::stringstream all(values[2]);
    for (std::string row; std::getline(all, row, ';');) {
      std::stringstream ids(row);
      rows.emplace_back();
      for (std::string id; std::getline(ids, id, ',');) rows.back().push_back(std::atoll(id.c_str()));
    }
    mythos::LoadOptions load;
    load.threads = 1;
    mythos::Model model = mythos::Model::load(values[1], load);
    mythos::GenerateOptions options;
    options.sampling.temperature = count > 4 ? std::atof(values[4]) : 0;
    options.sampling.seed = count > 5 ? std::strtoull(values[5], nullptr, 10) : 0;
    if (count > 6) options.max_new_tokens = std::atoll(values[6]);
    const auto side = count > 7 && std::string(values[7]) == "left" ? mythos::Padding::left : mythos::Padding::right;
    options.prefill_chunk = 3;
    if (options.sampling.temperature > 0) {
      options.sampling.top_k = 40;
      options.sampling.top_p = 0.95;
      options.sampling.min_p = 0.01;
      options.sampling.repetition_penalty = 1.1;
    }
    const mythos::Tokens tokens = mythos::Tokens::rows(rows, side);
    mythos::ForwardOptions whole;
    if (count > 8 && std::atoll(values[8]) > 0) whole.max_loops = std::atoll(values[8]);
    options.forward.max_loops = whole.max_loops;
    if (count > 9) {
      std::ifstream state(values[9], std::ios::binary);
      const std::string bytes{std::istreambuf_iterator<char>(state), {}};
      whole.initial_state.resize(bytes.size() / sizeof(float));
      std::memcpy(whole.initial_state.data(), bytes.data(), whole.initial_state.size() * sizeof(float));
    }
    const std::size_t width = whole.initial_state.size() / static_cast<std::size_t>(tokens.batch * tokens.tokens);
    std::FILE* file = std::fopen(values[3], "wb");
    if (!file) return 3;
    mythos::Output out = model.forward(tokens, whole);
    std::fwrite(out.logits.data(), sizeof(float), out.logits.size(), file);
    const std::vector<std::int32_t> depth = out.depth;
    mythos::Cache cache = model.new_cache(tokens.batch, tokens.tokens + 1, whole.max_loops);
    const std::int64_t cut = (tokens.tokens + 1) / 2;
    for (const auto& [from, to] : {std::pair{std::int64_t{0}, cut}, std::pair{cut, tokens.tokens}}) {
      mythos::Tokens part;
      part.batch = tokens.batch, part.tokens = to - from;
      mythos::ForwardOptions chunk;
      for (std::int64_t row = 0; row < tokens.batch; ++row)
        for (std::int64_t t = from; t < to; ++t) {
          part.ids.push_back(tokens.ids[static_cast<std::size_t>(row * tokens.tokens + t)]);
          part.valid.push_back(tokens.valid[static_cast<std::size_t>(row * tokens.tokens + t)]);
          const float* line = whole.initial_state.data() + static_cast<std::size_t>(row * tokens.tokens + t) * width;
          chunk.initial_state.insert(chunk.initial_state.end(), line, line + width);
        }
      out = model.forward(part, chunk, &cache);
      std::fwrite(out.logits.data(), sizeof(float), out.logits.size(), file);
    }
    std::fclose(file);
    const mythos::GenerationResult result = model.generate_all(rows, options);
    std::cout << nlohmann::json{{"tokens", result.tokens}, {"depth", result.depth}, {"loops", result.loops},
                                {"forward_depth", depth}} << "\n";
    return 0;
  } catch (const mythos::Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return error.exit_code();
  }
}
