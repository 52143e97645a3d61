// Talks to an exported model: text in, text out, without Python.
//
//   chat FILE
//
// FILE is the text-in text-out TorchScript file of `python -m analysis export`: normalisation,
// vocabulary and search are inside, so this program knows nothing of words. Through a pipe there is
// one reply for each line, and nothing else on standard output; in a terminal there is a prompt.
//
// Exit status: 0; 1 where a line was refused or could not be answered, or standard output could not
// be written; 2 where the command line or the file is wrong.

#include <torch/script.h>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace {

constexpr int kRefusedInput = 1;
constexpr int kRefusedFile = 2;
// Far beyond any utterance; it bounds the memory that a line without an end can take.
constexpr std::size_t kLongestLine = 100'000;
constexpr std::string_view kWhiteSpace = " \t\n\v\f\r";
constexpr std::string_view kExport = "python -m analysis export MODEL --kind text";

struct BadFile : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The first line of an error of torch, without the C++ stack that follows it.
std::string first_line(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  const std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

// Opens a text-in text-out model; throws BadFile that says what is wrong with any other file.
torch::jit::Module open_model(const std::string& path) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0) {
    throw BadFile("there is no such file");
  }
  if (!S_ISREG(found.st_mode)) {
    throw BadFile("is not a file");
  }
  if (access(path.c_str(), R_OK) != 0) {
    throw BadFile("cannot be read: permission denied");
  }
  std::optional<torch::jit::Module> model;
  try {
    model = torch::jit::load(path, torch::kCPU);
  } catch (const std::exception& error) {
    throw BadFile("is not a TorchScript file, or a damaged one: " + first_line(error));
  }
  const auto forward = model->find_method("forward");
  const auto texts = c10::ListType::ofStrings();
  if (forward) {
    const auto& schema = forward->function().getSchema();
    const auto& inputs = schema.arguments();
    const auto& outputs = schema.returns();
    if (inputs.size() == 2 && *inputs[1].type() == *texts && outputs.size() == 1 &&
        *outputs[0].type() == *texts) {
      model->eval();
      return std::move(*model);
    }
  }
  throw BadFile("is a TorchScript file, but not one that takes and gives texts; make one with: " +
                std::string(kExport));
}

std::string reply_to(torch::jit::Module& model, const std::string& text) {
  const c10::List<std::string> texts({text});
  const auto replies = model.forward({texts}).toList();
  return replies.get(0).toStringRef();
}

// Where a text stops being UTF-8 (RFC 3629, table 3-7 of the Unicode standard), if it does.
std::optional<std::size_t> first_bad_byte(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  for (std::size_t i = 0; i < text.size();) {
    const std::uint8_t lead = at(i);
    std::size_t more = 0;            // bytes that follow the first
    std::uint8_t low = 0x80, high = 0xBF;  // of the second byte: no overlong form, no surrogate
    if (lead < 0x80) {
      more = 0;
    } else if (lead >= 0xC2 && lead <= 0xDF) {
      more = 1;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      more = 2;
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      more = 3;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    } else {
      return i;
    }
    for (std::size_t k = 1; k <= more; ++k) {
      if (i + k >= text.size() || at(i + k) < low || at(i + k) > high) {
        return i;
      }
      low = 0x80;
      high = 0xBF;
    }
    i += more + 1;
  }
  return std::nullopt;
}

struct Line {
  std::string text;      // without its end; of a line that is too long, its beginning
  bool too_long = false;
};

// The next line, or nothing at the end of the input.
std::optional<Line> read_line(std::istream& input) {
  Line line;
  auto* buffer = input.rdbuf();
  constexpr auto end = std::istream::traits_type::eof();
  auto next = buffer->sbumpc();
  if (next == end) {
    return std::nullopt;
  }
  for (; next != end && next != '\n'; next = buffer->sbumpc()) {
    if (line.text.size() < kLongestLine) {
      line.text.push_back(static_cast<char>(next));
    } else {
      line.too_long = true;
    }
  }
  return line;
}

std::string_view stripped(std::string_view text) {
  const auto first = text.find_first_not_of(kWhiteSpace);
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(kWhiteSpace) - first + 1);
}

bool says_goodbye(std::string_view text) {
  std::string word(stripped(text));
  std::transform(word.begin(), word.end(), word.begin(),
                 [](unsigned char c) { return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c; });
  return word == "q" || word == "quit" || word == "exit";
}

// What is wrong with a line, or nothing.
std::optional<std::string> problem_with(const Line& line) {
  if (line.too_long) {
    return "is longer than " + std::to_string(kLongestLine) + " bytes";
  }
  if (const auto place = first_bad_byte(line.text)) {
    return "is not UTF-8 at byte " + std::to_string(*place + 1);
  }
  return std::nullopt;
}

// Replies to each line until the end of the input or "quit"; returns the exit status.
int chat(torch::jit::Module& model, const std::string& path, bool terminal) {
  int status = 0;
  if (terminal) {
    std::cout << "Talking to " << path
              << ". An empty line is passed over; 'quit', 'q' or Ctrl-D leaves.\n";
  }
  for (std::size_t number = 1;; ++number) {
    if (terminal) {
      std::cout << "you> " << std::flush;
    }
    const auto line = read_line(std::cin);
    if (!line) {
      if (terminal) {
        std::cout << std::endl;
      }
      break;
    }
    if (says_goodbye(line->text)) {
      break;
    }
    if (terminal && stripped(line->text).empty()) {
      continue;
    }
    std::string reply;
    auto problem = problem_with(*line);
    if (!problem) {
      try {
        reply = reply_to(model, line->text);
      } catch (const std::exception& error) {
        problem = "could not be answered: " + first_line(error);
      }
    }
    if (problem) {
      std::cerr << "error: line " << number << ": " << *problem << "." << std::endl;
      status = kRefusedInput;
    }
    // A refused line has an empty reply, so that replies stay in step with lines.
    if (!terminal) {
      std::cout << reply << std::endl;
    } else if (!problem) {
      std::cout << "bot> " << (reply.empty() ? "(no words that I can read)" : reply) << std::endl;
    }
    if (!std::cout) {
      std::cerr << "error: standard output cannot be written." << std::endl;
      return kRefusedInput;
    }
  }
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string usage = "usage: chat FILE\n";
  if (argc == 2 && (std::string_view(argv[1]) == "--help" || std::string_view(argv[1]) == "-h")) {
    std::cout << usage << "\nTalks to FILE, which this makes: " << kExport
              << "\nOne reply for each line of standard input; 'quit', 'q' or 'exit' leaves.\n";
    return 0;
  }
  if (argc != 2) {
    std::cerr << usage << "error: expected one file, but got " << argc - 1 << " arguments.\n";
    return kRefusedFile;
  }
  std::ios::sync_with_stdio(false);
  const std::string path = argv[1];
  try {
    const c10::InferenceMode no_gradients;
    auto model = open_model(path);
    return chat(model, path, isatty(STDIN_FILENO));
  } catch (const BadFile& error) {
    std::cerr << "error: " << path << ": " << error.what() << "." << std::endl;
    return kRefusedFile;
  } catch (const std::exception& error) {
    std::cerr << "error: " << path << ": " << first_line(error) << std::endl;
    return kRefusedInput;
  }
}
