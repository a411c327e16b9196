// golden.npz without numpy: a zip of .npy files, stored as they are, which is what fcast-export writes.
//
// Nothing that the file says is believed before it has been compared with the bytes that are there.

#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the files are little-endian, and are read as they lie");

struct Array {
    bool is_double;  // float64, otherwise float32
    std::vector<int64_t> shape;
    std::string bytes;
};

inline std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string content{std::istreambuf_iterator<char>(file), {}};
    if (!file) throw std::runtime_error(path + ": expected a file that can be read, got none; copy the artifact again");
    return content;
}

class Npz {
  public:
    explicit Npz(const std::string& path) : path_(path), data_(read_file(path)) {}

    std::map<std::string, Array> arrays() const {
        std::map<std::string, Array> found;
        const size_t end = data_.rfind("PK\x05\x06");  // the end of the central directory
        if (end == std::string::npos) fail("a zip file", "one without a directory");
        const size_t entries = number<uint16_t>(end + 10);
        size_t at = number<uint32_t>(end + 16);
        for (size_t i = 0; i < entries; ++i) {
            if (text(at, 4) != "PK\x01\x02") fail("an entry of the zip's directory", "something else");
            const uint16_t method = number<uint16_t>(at + 10);
            const size_t packed = number<uint32_t>(at + 20), size = number<uint32_t>(at + 24);
            const size_t name_size = number<uint16_t>(at + 28);
            const size_t local = number<uint32_t>(at + 42);
            const std::string name = text(at + 46, name_size);
            if (method != 0 || packed != size) fail("stored arrays", "compressed ones");
            if (text(local, 4) != "PK\x03\x04") fail("'" + name + "' in the zip", "something else");
            const size_t content = local + 30 + number<uint16_t>(local + 26) + number<uint16_t>(local + 28);
            const size_t stem = name.size() < 4 ? 0 : name.size() - 4;
            if (name.substr(stem) != ".npy") fail("arrays alone", "'" + name + "'");
            if (!found.emplace(name.substr(0, stem), array(text(content, size), name)).second)
                fail("each array once", "'" + name + "' twice");
            at += 46 + name_size + number<uint16_t>(at + 30) + number<uint16_t>(at + 32);
        }
        return found;
    }

  private:
    // An .npy file of format 1.0: magic, version, size of the header, the header as a Python dict, the numbers.
    Array array(const std::string& npy, const std::string& name) const {
        static const std::regex header(
            R"(\{'descr': '<f([48])', 'fortran_order': False, 'shape': \(([0-9]+(?:, [0-9]+)*),?\), \} *\n)");
        const std::string magic("\x93NUMPY\x01\x00", 8);
        if (npy.size() < 10 || npy.compare(0, 8, magic) != 0)
            fail("'" + name + "' as an .npy of format 1.0", "another");
        const size_t header_size = static_cast<unsigned char>(npy[8]) + 256u * static_cast<unsigned char>(npy[9]);
        std::smatch said;
        const std::string head = npy.substr(10, header_size);
        if (head.size() > 1024 || !std::regex_match(head, said, header))
            fail("float32 or float64 in C order for '" + name + "'", "'" + head.substr(0, 80) + "'");

        Array found{said[1] == "8", {}, npy.substr(10 + head.size())};
        size_t bytes = found.is_double ? 8 : 4;
        std::istringstream sizes(said[2]);
        for (std::string size; std::getline(sizes, size, ',');) {
            // Nine digits are more than any axis has; that a product of such sizes fits is compared below.
            const size_t axis = size.size() > 10 ? SIZE_MAX : std::stoul(size);
            if (__builtin_mul_overflow(bytes, axis, &bytes)) bytes = SIZE_MAX;
            found.shape.push_back(static_cast<int64_t>(axis));
        }
        if (bytes != found.bytes.size())
            fail("as many numbers in '" + name + "' as its shape says", std::to_string(found.bytes.size()) + " bytes");
        return found;
    }

    template <typename Integer>
    Integer number(size_t at) const {
        Integer value;
        std::memcpy(&value, text(at, sizeof value).data(), sizeof value);
        return value;
    }

    std::string text(size_t at, size_t size) const {
        if (at > data_.size() || size > data_.size() - at) fail("a whole file", "one that is cut short");
        return data_.substr(at, size);
    }

    [[noreturn]] void fail(const std::string& expected, const std::string& found) const {
        throw std::runtime_error(path_ + ": expected " + expected + ", got " + found + "; export again");
    }

    std::string path_;
    std::string data_;
};
