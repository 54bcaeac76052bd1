package report

import (
	"bytes"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// yamlLines is an object as YAML, a line for each value: a string of several lines, which a remote may have written,
// is quoted and makes no line of its own. Keys are sorted; what says nothing (null, an empty status) is left out.
func yamlLines(object any) []string {
	if object == nil {
		return nil
	}
	text, err := json.Marshal(object)
	if err != nil {
		return []string{"# " + err.Error()}
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var decoded any
	if err := decoder.Decode(&decoded); err != nil {
		return []string{"# " + err.Error()}
	}
	value := tidy(decoded)
	if value == nil {
		return nil
	}
	return yamlOf(value)
}

// tidy takes out what says nothing of an object.
func tidy(value any) any {
	object, ok := value.(map[string]any)
	if !ok {
		return value
	}
	if metadata, ok := object["metadata"].(map[string]any); ok {
		delete(metadata, "managedFields")
	}
	if status, ok := object["status"].(map[string]any); ok {
		if balancer, ok := status["loadBalancer"].(map[string]any); ok && len(balancer) == 0 {
			delete(status, "loadBalancer")
		}
		if len(status) == 0 {
			delete(object, "status")
		}
	}
	for key, inner := range object {
		if inner == nil {
			delete(object, key)
			continue
		}
		object[key] = tidy(inner)
	}
	return object
}

// yamlOf is a value in block style, not indented.
func yamlOf(value any) (lines []string) {
	switch value := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			name := scalar(key) + ":"
			if inner := value[key]; !block(inner) {
				lines = append(lines, name+" "+scalar(inner))
			} else {
				indent := "  "
				if _, list := inner.([]any); list { // as kubectl prints lists
					indent = ""
				}
				lines = append(append(lines, name), indented(indent, yamlOf(inner))...)
			}
		}
	case []any:
		for _, item := range value {
			if !block(item) {
				lines = append(lines, "- "+scalar(item))
				continue
			}
			inner := indented("  ", yamlOf(item))
			inner[0] = "- " + inner[0][2:]
			lines = append(lines, inner...)
		}
	default:
		lines = append(lines, scalar(value))
	}
	return lines
}

// block tells whether a value takes lines of its own.
func block(value any) bool {
	switch value := value.(type) {
	case map[string]any:
		return len(value) > 0
	case []any:
		return len(value) > 0
	}
	return false
}

func indented(by string, lines []string) []string {
	for i := range lines {
		lines[i] = by + lines[i]
	}
	return lines
}

// plain are the strings that YAML takes for strings without quotes; words such as true and null it does not.
var (
	plainText = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./-]*(:[0-9]+)?$`)
	notText   = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null|\.nan|\.inf)$`)
)

// scalar is a value on one line. What is JSON is YAML, too.
func scalar(value any) string {
	if text, ok := value.(string); ok && plainText.MatchString(text) && !notText.MatchString(text) {
		return text
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return `""`
	}
	return strings.TrimSpace(out.String())
}
