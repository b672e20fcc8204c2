package transport

import (
	"regexp"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// ClusterClient is the label that calls to other processes carry; app mounts it as
// common.client_cluster_validation.
type ClusterClient struct{ Label string }

// Declare implements config.Declarer.
func (c *ClusterClient) Declare(s *config.Set) {
	s.String(&c.Label, "label", "", "Name of the cluster that calls to other processes carry, over gRPC and HTTP. Processes that check it refuse calls from other clusters. Empty: none.").Expert()
}

// ClusterServer says which calls a process takes by the cluster that they name; Config mounts it as
// cluster_validation.
type ClusterServer struct {
	Label      string
	Additional []string
	GRPC       ClusterCheck
	HTTP       ClusterHTTP
}

// ClusterCheck is whether the calls of one protocol are checked.
type ClusterCheck struct {
	Enabled bool
	Soft    bool
}

// ClusterHTTP is ClusterCheck with requests that need no label.
type ClusterHTTP struct {
	ClusterCheck
	Paths      []string
	UserAgents []string
}

// Declare implements config.Declarer.
func (c *ClusterServer) Declare(s *config.Set) {
	s.String(&c.Label, "label", "", "Name of the cluster that checked calls must carry.").Expert()
	s.Strings(&c.Additional, "additional_labels", nil, "Further names that are accepted, for example while a cluster is renamed.").Expert()
	s.Mount("grpc", &c.GRPC)
	s.Mount("http", &c.HTTP)
}

// Declare implements config.Declarer.
func (c *ClusterCheck) Declare(s *config.Set) {
	s.Bool(&c.Enabled, "enabled", false, "Whether calls without the name of the cluster are refused.").Expert()
	s.Bool(&c.Soft, "soft_validation", false, "Whether such calls are only counted and logged.").Expert()
}

// Declare implements config.Declarer.
func (c *ClusterHTTP) Declare(s *config.Set) {
	c.ClusterCheck.Declare(s)
	s.Strings(&c.Paths, "excluded_paths", nil, "Paths that are served without the name, each with all below it. /metrics, /ready and /debug/pprof always are.").Expert()
	s.Strings(&c.UserAgents, "excluded_user_agents", nil, "Regular expressions of User-Agent headers whose clients need no name.").Expert()
}

// Validate refuses what could not check anything.
func (c *ClusterServer) Validate() error {
	if c.Label == "" && len(c.Additional) > 0 {
		return config.Wrong("additional_labels", "needs label, the name of the cluster")
	}
	for name, check := range map[string]ClusterCheck{"grpc": c.GRPC, "http": c.HTTP.ClusterCheck} {
		switch {
		case c.Label == "" && (check.Enabled || check.Soft):
			return config.Wrong(name+".enabled", "needs label, the name of the cluster")
		case check.Soft && !check.Enabled:
			return config.Wrong(name+".soft_validation", "needs %s.enabled", name)
		}
	}
	for _, text := range c.HTTP.UserAgents {
		if _, err := regexp.Compile(text); err != nil {
			return config.Wrong("http.excluded_user_agents", "%q is no regular expression: %w", text, err)
		}
	}
	return nil
}
