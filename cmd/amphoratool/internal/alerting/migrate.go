package alerting

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/featurecontrol"
	"github.com/prometheus/alertmanager/matcher/compat"
	"github.com/prometheus/alertmanager/matcher/parse"
	"github.com/prometheus/alertmanager/pkg/labels"
	"github.com/prometheus/common/promslog"
	"go.yaml.in/yaml/v3"
)

func (c *command) registerMigrate(family *kingpin.CmdClause) {
	migrate := family.Command("migrate-utf8", "Write the matchers of a configuration so that alertmanagers with --utf8-strict-mode and those without understand the same, without a server.")
	c.declareFiles(migrate)
	migrate.Flag("output-dir", "Directory to write the configuration and its templates to, instead of printing.").StringVar(&c.dir)
	c.Do(migrate, c.migrateUTF8)
}

// migrateUTF8 leaves everything but the matchers as it stands in the file: comments, order and secrets.
func (c *command) migrateUTF8(context.Context) error {
	c.utf8 = false // the file is as it was before
	d, err := c.read()
	if err != nil {
		return err
	}
	text, changes, err := migrate([]byte(d.Config))
	if err != nil {
		return fmt.Errorf("%s: %w", c.file, err)
	}
	for _, change := range changes {
		if _, err := fmt.Fprintf(c.Err, "%s:%s\n", c.file, change); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(c.Err, "%d lines of matchers changed\n", len(changes)); err != nil {
		return err
	}
	d.Config = string(text)
	if err := strict(d.Config); err != nil {
		return fmt.Errorf("what was written is not understood in strict mode: %w", err)
	}
	if c.dir != "" {
		return c.save(d)
	}
	c.Say("%s", strings.TrimSpace(d.Config))
	return nil
}

// strict checks that a configuration is understood as UTF-8 only.
func strict(text string) error {
	if err := initMatchers(featurecontrol.FeatureUTF8StrictMode); err != nil {
		return err
	}
	_, err := config.Load(text)
	return err
}

// migrate writes every matcher of a configuration anew. It returns what changed, with lines.
func migrate(text []byte) ([]byte, []string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, nil, err
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, nil, errors.New("it is no configuration")
	}
	var changes []string
	root := doc.Content[0]
	if err := routes(field(root, "route"), &changes); err != nil {
		return nil, nil, err
	}
	if rules := field(root, "inhibit_rules"); rules != nil {
		for _, rule := range rules.Content {
			for _, key := range []string{"source_matchers", "target_matchers"} {
				if err := matchers(field(rule, key), &changes); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	if len(changes) == 0 {
		return text, nil, nil
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, nil, err
	}
	return out.Bytes(), changes, enc.Close()
}

// field returns the value of a key of a mapping, nil if there is none.
func field(n *yaml.Node, key string) *yaml.Node {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// routes changes the matchers of a route and of those below it.
func routes(n *yaml.Node, changes *[]string) error {
	if err := matchers(field(n, "matchers"), changes); err != nil {
		return err
	}
	below := field(n, "routes")
	if below == nil {
		return nil
	}
	for _, r := range below.Content {
		if err := routes(r, changes); err != nil {
			return err
		}
	}
	return nil
}

// matchers changes the items of a list of matchers. An item may hold several.
func matchers(list *yaml.Node, changes *[]string) error {
	if list == nil {
		return nil
	}
	var items []*yaml.Node
	for _, item := range list.Content {
		found, err := compat.FallbackMatchersParser(promslog.NewNopLogger())(item.Value, "configuration")
		if err != nil {
			return fmt.Errorf("line %d: %w", item.Line, err)
		}
		if item.Kind != yaml.ScalarNode || same(item.Value, found) {
			items = append(items, item)
			continue
		}
		texts := make([]string, 0, len(found))
		for i, m := range found {
			one := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.SingleQuotedStyle, Value: m.String()}
			if i == 0 {
				one.HeadComment, one.LineComment = item.HeadComment, item.LineComment
			}
			if i == len(found)-1 {
				one.FootComment = item.FootComment
			}
			items, texts = append(items, one), append(texts, one.Value)
		}
		*changes = append(*changes, strconv.Itoa(item.Line)+": "+item.Value+" becomes "+strings.Join(texts, " and "))
	}
	list.Content = items
	return nil
}

// same says whether text read as UTF-8 only means found as well.
func same(text string, found labels.Matchers) bool {
	strictly, err := parse.Matchers(text)
	return err == nil && slices.EqualFunc(strictly, found, func(a, b *labels.Matcher) bool {
		return a.Name == b.Name && a.Type == b.Type && a.Value == b.Value
	})
}
