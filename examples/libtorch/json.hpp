// As much JSON as manifest.json and parity.json need: strings keep their escapes, since no name in use has any.

#pragma once

#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

struct Json {
    enum Kind { null, boolean, number, string, list, object } kind = null;
    double value = 0;
    std::string text;
    std::vector<Json> items;
    std::map<std::string, Json> fields;

    bool has(const std::string& key) const { return fields.count(key) != 0; }

    const Json& at(const std::string& key, Kind wanted) const {
        const auto found = fields.find(key);
        if (found == fields.end() || found->second.kind != wanted)
            throw std::runtime_error("expected the key '" + key + "', got none or one of another type; export again");
        return found->second;
    }

    std::vector<std::string> texts(const std::string& key) const {
        std::vector<std::string> found;
        for (const Json& item : at(key, list).items) {
            if (item.kind != string) throw std::runtime_error("expected texts in '" + key + "'; export again");
            found.push_back(item.text);
        }
        return found;
    }
};

class JsonParser {
  public:
    static Json parse(const std::string& text) {
        JsonParser parser(text);
        Json value = parser.read(0);
        parser.skip();
        if (parser.at_ != text.size()) parser.fail();
        return value;
    }

  private:
    explicit JsonParser(const std::string& text) : text_(text) {}

    Json read(int depth) {
        if (depth > 64) fail();
        Json found;
        skip();
        if (take('{')) {
            found.kind = Json::object;
            for (bool more = !next_is('}'); more; more = take(',')) {
                skip();
                const std::string key = quoted();
                skip();
                want(':');
                found.fields[key] = read(depth + 1);
                skip();
            }
            want('}');
        } else if (take('[')) {
            found.kind = Json::list;
            for (bool more = !next_is(']'); more; more = take(',')) {
                found.items.push_back(read(depth + 1));
                skip();
            }
            want(']');
        } else if (next_is('"')) {
            found.kind = Json::string;
            found.text = quoted();
        } else if (word("true") || word("false")) {
            found.kind = Json::boolean;
        } else if (!word("null")) {
            const char* begin = text_.c_str() + at_;
            char* end = nullptr;
            found.kind = Json::number;
            found.value = std::strtod(begin, &end);
            if (end == begin) fail();
            at_ += static_cast<size_t>(end - begin);
        }
        return found;
    }

    std::string quoted() {
        want('"');
        std::string found;
        while (at_ < text_.size() && text_[at_] != '"') {
            if (text_[at_] == '\\') found += text_[at_++];
            if (at_ < text_.size()) found += text_[at_++];
        }
        want('"');
        return found;
    }

    void skip() {
        while (at_ < text_.size() && std::string(" \t\r\n").find(text_[at_]) != std::string::npos) ++at_;
    }

    bool next_is(char wanted) {
        skip();
        return at_ < text_.size() && text_[at_] == wanted;
    }

    bool take(char wanted) {
        if (at_ >= text_.size() || text_[at_] != wanted) return false;
        ++at_;
        return true;
    }

    bool word(const std::string& wanted) {
        if (text_.compare(at_, wanted.size(), wanted) != 0) return false;
        at_ += wanted.size();
        return true;
    }

    void want(char wanted) {
        if (!take(wanted)) fail();
    }

    [[noreturn]] void fail() const {
        throw std::runtime_error("expected JSON, got something else at byte " + std::to_string(at_) + "; export again");
    }

    const std::string& text_;
    size_t at_ = 0;
};
