package alertmanager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/prometheus/alertmanager/alert"
	amconfig "github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/common/config"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// publisher publishes to SNS. Unlike upstream's, it names each notification to a FIFO topic by what it
// says, since SNS drops what has the name of a message of the last five minutes: all notifications of a
// group having one name, their resolution would be lost. And what SNS would refuse it mends, and says so,
// as Amazon's service does.
type publisher struct {
	conf *amconfig.SNSConfig
	tmpl *template.Template
	log  *slog.Logger
	http aws.HTTPClient

	mu     sync.Mutex // guards what follows
	loaded bool
	aws    aws.Config
}

// newPublisher uses the client of the SDK, as that alone takes the bundle of certificates of the
// environment. Of the HTTP settings it needs those of TLS and proxies: requests are signed.
func newPublisher(c *amconfig.SNSConfig, t *template.Template, log *slog.Logger, wall firewall) (*publisher, error) {
	secure, err := config.NewTLSConfig(&c.HTTPConfig.TLSConfig)
	if err != nil {
		return nil, err
	}
	client := awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) {
		tr.DialContext, tr.TLSClientConfig, tr.Proxy = wall.dial, secure, c.HTTPConfig.Proxy()
	})
	return &publisher{conf: c, tmpl: t, log: log, http: client}, nil
}

// Notify implements notify.Notifier.
func (p *publisher) Notify(ctx context.Context, alerts ...*alert.Alert) (retry bool, err error) {
	in, endpoint, err := p.message(ctx, alerts)
	if err != nil {
		return false, notify.NewErrorWithReason(notify.ClientErrorReason, err)
	}
	c, err := p.credentials(ctx)
	if err != nil {
		return true, fmt.Errorf("credentials for SNS: %w", err)
	}
	_, err = sns.NewFromConfig(c, func(o *sns.Options) {
		if endpoint != "" {
			o.BaseEndpoint = &endpoint
		}
	}).Publish(ctx, in)
	if err == nil {
		return false, nil
	}
	var answer *smithyhttp.ResponseError
	if !errors.As(err, &answer) || answer.Response == nil {
		return true, err
	}
	status := answer.HTTPStatusCode()
	return status/100 == 5 || status == http.StatusTooManyRequests, notify.NewErrorWithReason(notify.GetFailureReasonFromStatusCode(status), err)
}

// credentials returns what requests are signed with. Upstream's order: keys of the configuration, or those
// of the process; with them the role, if there is one.
func (p *publisher) credentials(ctx context.Context) (aws.Config, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loaded {
		return p.aws, nil
	}
	v4 := p.conf.Sigv4
	opts := []func(*awsconfig.LoadOptions) error{awsconfig.WithHTTPClient(p.http)}
	if v4.Region != "" {
		opts = append(opts, awsconfig.WithRegion(v4.Region))
	}
	if v4.Profile != "" {
		opts = append(opts, awsconfig.WithSharedConfigProfile(v4.Profile))
	}
	if v4.AccessKey != "" {
		opts = append(opts, awsconfig.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(v4.AccessKey, string(v4.SecretKey), "")))
	}
	c, err := awsconfig.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return aws.Config{}, err
	}
	if c.Region == "" {
		return aws.Config{}, errs.New(errs.Invalid, "sigv4 has no region, and the process has none")
	}
	if v4.RoleARN != "" {
		role := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(c), v4.RoleARN, func(o *stscreds.AssumeRoleOptions) {
			if v4.ExternalID != "" {
				o.ExternalID = &v4.ExternalID
			}
		})
		c.Credentials = aws.NewCredentialsCache(role)
	}
	p.aws, p.loaded = c, true
	return c, nil
}

const (
	// The sizes that SNS takes. Those of messages are in bytes, for phones in characters.
	snsMessageBytes = 256 << 10
	snsPhoneRunes   = 1600
	snsSubjectRunes = 100
	snsNameBytes    = 256

	snsNoMessage  = "Error - Message should not be empty."
	snsBadMessage = "Error - not a valid UTF-8 encoded string."
	snsBadSubject = "Error - contains control- or non-ASCII characters."
)

// message is what is published, and where.
func (p *publisher) message(ctx context.Context, alerts []*alert.Alert) (*sns.PublishInput, string, error) {
	var problem error
	text := notify.TmplText(p.tmpl, notify.GetTemplateData(ctx, p.tmpl, alerts, p.log), &problem)
	attributes := map[string]string{}
	for k, v := range p.conf.Attributes {
		attributes[text(k)] = text(v)
	}
	endpoint, topic, target, phone := text(p.conf.APIUrl), text(p.conf.TopicARN), text(p.conf.TargetARN), text(p.conf.PhoneNumber)
	message, subject := text(p.conf.Message), text(p.conf.Subject)
	if problem != nil {
		return nil, "", fmt.Errorf("templates of the notification: %w", problem)
	}
	in := &sns.PublishInput{TopicArn: given(topic), TargetArn: given(target), PhoneNumber: given(phone)}
	if strings.HasSuffix(topic, ".fifo") {
		group, err := notify.ExtractGroupKey(ctx)
		if err != nil {
			return nil, "", err
		}
		in.MessageGroupId = aws.String(group.Hash())
		in.MessageDeduplicationId = given(idempotencyKey(ctx))
	}
	mend(in, message, subject, attributes)
	return in, endpoint, nil
}

func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// mend fills in what SNS accepts. What had to be changed for that stands in the attribute modified.
func mend(in *sns.PublishInput, message, subject string, attributes map[string]string) {
	var modified []string
	message, cut, why := snsMessage(message, in.PhoneNumber != nil)
	if why != "" {
		modified = append(modified, "Message: "+why)
	}
	in.Message = &message
	subject, why = snsSubject(subject)
	if why != "" {
		modified = append(modified, "Subject: "+why)
	}
	in.Subject = given(subject)
	n := len(attributes)
	maps.DeleteFunc(attributes, func(k, v string) bool {
		return !snsName(k) || v == "" || !utf8.ValidString(v) || len(v) > snsMessageBytes
	})
	if n -= len(attributes); n > 0 {
		modified = append(modified, fmt.Sprintf("MessageAttribute: Error - %d of the message attributes have been removed because of invalid MessageAttributeKey or MessageAttributeValue.", n))
	}
	if cut {
		attributes["truncated"] = "true"
	}
	if len(modified) > 0 {
		attributes["modified"] = strings.Join(modified, " ")
	}
	in.MessageAttributes = make(map[string]snstypes.MessageAttributeValue, len(attributes))
	for _, k := range slices.Sorted(maps.Keys(attributes)) {
		in.MessageAttributes[k] = snstypes.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(attributes[k])}
	}
}

// snsMessage returns a message as SNS takes it, whether it is less than s, and what was done to it.
func snsMessage(s string, phone bool) (out string, cut bool, why string) {
	switch {
	case !utf8.ValidString(s):
		return snsBadMessage, true, snsBadMessage
	case strings.TrimSpace(s) == "":
		return snsNoMessage, false, snsNoMessage
	case phone:
		if n := utf8.RuneCountInString(s); n > snsPhoneRunes {
			return string([]rune(s)[:snsPhoneRunes]), true, fmt.Sprintf("Error - Message has been truncated from %d characters, because it exceeds the %d character size limit.", n, snsPhoneRunes)
		}
	case len(s) > snsMessageBytes:
		end := snsMessageBytes
		for !utf8.RuneStart(s[end]) {
			end--
		}
		return s[:end], true, fmt.Sprintf("Error - Message has been truncated from %d KB, because it exceeds the %d KB size limit.", (len(s)+1023)>>10, snsMessageBytes>>10)
	}
	return s, false, ""
}

// snsSubject returns a subject as SNS takes it, and what was done to it.
func snsSubject(s string) (out, why string) {
	s = strings.TrimSpace(s)
	for _, r := range s {
		if r < ' ' || r > '~' {
			return snsBadSubject, snsBadSubject
		}
	}
	if len(s) > snsSubjectRunes {
		return s[:snsSubjectRunes], fmt.Sprintf("Error - Subject has been truncated from %d characters, because it exceeds the %d character size limit.", len(s), snsSubjectRunes)
	}
	return s, ""
}

// snsName says whether SNS takes s as the name of an attribute.
func snsName(s string) bool {
	lower := strings.ToLower(s)
	return s != "" && len(s) <= snsNameBytes && !strings.HasPrefix(lower, "aws.") && !strings.HasPrefix(lower, "amazon.") &&
		!strings.HasPrefix(s, ".") && !strings.HasSuffix(s, ".") && !strings.Contains(s, "..") &&
		strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789_-.") == ""
}
