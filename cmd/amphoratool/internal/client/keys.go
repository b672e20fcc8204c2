package client

import (
	"fmt"
	"os"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// Signer reads an access key from the environment or else from a file of the AWS tools' kind.
func Signer(file, region string) (sigv4.Signer, error) {
	s := sigv4.Signer{
		AccessKey: os.Getenv("AWS_ACCESS_KEY_ID"), Secret: os.Getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: os.Getenv("AWS_SESSION_TOKEN"),
		Region: region, Service: "aps",
	}
	if s.AccessKey != "" {
		return s, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return s, fmt.Errorf("read the access key, as AWS_ACCESS_KEY_ID is not set: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, "=")
		switch value = strings.TrimSpace(value); strings.TrimSpace(name) {
		case "aws_access_key_id":
			s.AccessKey = value
		case "aws_secret_access_key":
			s.Secret = value
		case "aws_session_token":
			s.SessionToken = value
		}
	}
	if s.AccessKey == "" || s.Secret == "" {
		return s, fmt.Errorf("%s holds no access key", file)
	}
	return s, nil
}
