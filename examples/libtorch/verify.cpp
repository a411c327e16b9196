// Does model.pt forecast in plain libtorch what the trained model did? Runs the golden windows of one version of an
// artifact, all in one batch and one by one, and compares them within the tolerance of its proof, as fcast-verify does
// for model.onnx. It hashes nothing: that is fcast-verify's.
//
//     ./verify artifacts/gru/1        0: agrees. 1: does not, or cannot be read. 2: usage.
//
// Axes: N windows, L context, C channels, H horizon, Q levels. docs/artifact.md is the specification.

#include <torch/script.h>

#include <cmath>
#include <cstdio>
#include <exception>

#include "json.hpp"
#include "npz.hpp"

struct Tolerance {
    double rtol, atol;
    std::vector<double> scale;  // of each channel, raw units
};

static Json read_json(const std::string& path) {
    try {
        return JsonParser::parse(read_file(path));
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(path + ": " + error.what());
    }
}

static Tolerance read_tolerance(const std::string& folder, const std::vector<std::string>& channels) {
    const Json report = read_json(folder + "/parity.json");
    const Json& said = report.at("tolerances", Json::object);
    Tolerance within{said.at("rtol", Json::number).value, said.at("atol", Json::number).value, {}};
    for (const std::string& channel : channels)
        within.scale.push_back(said.at("channel_scale", Json::object).at(channel, Json::number).value);
    return within;
}

static torch::Tensor take(const std::map<std::string, Array>& golden, const std::string& name) {
    const auto found = golden.find(name);
    if (found == golden.end())
        throw std::runtime_error("golden.npz: expected the array '" + name + "', got none; export again");
    const Array& array = found->second;
    const auto type = array.is_double ? torch::kFloat64 : torch::kFloat32;
    if (array.is_double != (name == "time_s") || array.shape[0] < 1)
        throw std::runtime_error("golden.npz: expected another type, or windows, in '" + name + "'; export again");
    return torch::from_blob(const_cast<char*>(array.bytes.data()), array.shape, type).clone();
}

// What the module gives for all windows, `batch` of them at a time: the outputs in the manifest's order.
static std::vector<torch::Tensor> run(torch::jit::Module& model, const std::vector<torch::Tensor>& inputs,
                                      int64_t batch) {
    std::vector<std::vector<torch::Tensor>> parts;
    const int64_t windows = inputs[0].size(0);
    for (int64_t from = 0; from < windows; from += batch) {
        std::vector<torch::jit::IValue> arguments;
        for (const torch::Tensor& input : inputs) arguments.emplace_back(input.slice(0, from, from + batch));
        const torch::jit::IValue got = model.forward(arguments);
        std::vector<torch::Tensor> outputs;
        if (got.isTuple()) {
            for (const torch::jit::IValue& element : got.toTupleRef().elements()) outputs.push_back(element.toTensor());
        } else {
            outputs.push_back(got.toTensor());
        }
        parts.resize(outputs.size());
        for (size_t i = 0; i < outputs.size(); ++i) parts[i].push_back(outputs[i]);
    }
    std::vector<torch::Tensor> whole;
    for (const auto& part : parts) whole.push_back(torch::cat(part));
    return whole;
}

// Prints a line per channel; true when every number of the (N, H, C or 2C, Q) output is within its tolerance.
static bool agrees(const std::string& output, const torch::Tensor& want, const torch::Tensor& got, int64_t batch,
                   const std::vector<std::string>& channels, const Tolerance& within) {
    if (got.sizes() != want.sizes() || got.scalar_type() != torch::kFloat32 || want.dim() != 4) {
        std::printf("%-26s DIFFERS in shape or type\n", output.c_str());
        return false;
    }
    bool good = true;
    for (int64_t c = 0; c < want.size(2); ++c) {
        const size_t channel = static_cast<size_t>(c) % channels.size();
        const std::string sum_or_peak = c < static_cast<int64_t>(channels.size()) ? "sum of " : "peak of ";
        const std::string name = (output == "demand" ? sum_or_peak : "") + channels[channel];
        const torch::Tensor expected = want.select(2, c).to(torch::kFloat64);
        const torch::Tensor difference = (got.select(2, c).to(torch::kFloat64) - expected).abs();
        const torch::Tensor allowed = within.atol * within.scale[channel] + within.rtol * expected.abs();
        // An infinite forecast would be within an infinite tolerance.
        const bool ok = difference.isfinite().logical_and(difference <= allowed).all().item<bool>();
        const double used = 100 * (difference / allowed.clamp_min(1e-300)).max().item<double>();
        std::printf("%-26s%6lld%12.3g%15.1f%%  %s\n", name.c_str(), static_cast<long long>(batch),
                    difference.max().item<double>(), used, ok ? "ok" : "DIFFERS");
        good = good && ok;
    }
    return good;
}

static bool verify(const std::string& folder) {
    const Json manifest = read_json(folder + "/manifest.json");
    const std::vector<std::string> channels = manifest.texts("channels");
    if (channels.empty()) throw std::runtime_error("manifest.json: expected channels, got none; export again");
    // Artifacts from before there was a second output do not have the key.
    const std::vector<std::string> outputs =
        manifest.has("outputs") ? manifest.texts("outputs") : std::vector<std::string>{"forecast"};
    const Tolerance within = read_tolerance(folder, channels);
    const std::map<std::string, Array> golden = Npz(folder + "/golden.npz").arrays();
    std::vector<torch::Tensor> inputs;
    for (const std::string& name : manifest.texts("inputs")) inputs.push_back(take(golden, name));

    torch::jit::Module model = torch::jit::load(folder + "/model.pt", torch::kCPU);
    model.eval();
    const torch::NoGradGuard no_gradients;

    const int64_t windows = inputs.at(0).size(0);
    std::printf("%lld golden windows of %s in libtorch\n", static_cast<long long>(windows), folder.c_str());
    std::printf("%-26s%6s%12s%16s\n", "channel", "batch", "max abs", "tolerance used");
    bool good = true;
    for (const int64_t batch : {windows, int64_t{1}}) {
        const std::vector<torch::Tensor> got = run(model, inputs, batch);
        if (got.size() != outputs.size()) throw std::runtime_error("model.pt: expected the outputs of the manifest");
        for (size_t i = 0; i < outputs.size(); ++i)
            good = agrees(outputs[i], take(golden, outputs[i]), got[i], batch, channels, within) && good;
    }
    return good;
}

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "Usage: %s artifacts/NAME/VERSION\n", argv[0]);
        return 2;
    }
    try {
        if (verify(argv[1])) return 0;
        std::fprintf(stderr, "Error: %s: expected the trained model's forecasts, got others; do not serve it here\n",
                     argv[1]);
    } catch (const std::exception& error) {
        const std::string said = error.what();  // torch appends where in its own sources it was thrown
        std::fprintf(stderr, "Error: %s\n", said.substr(0, said.find('\n')).c_str());
    }
    return 1;
}
