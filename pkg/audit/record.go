// Package audit owns the audit log: one record for each call that reads or changes the configuration,
// in the form of AWS CloudTrail. A record is written to a local file when the call ends and shipped
// to object storage in batches; each batch names its predecessor, so that removed or altered records
// are detected.
package audit

import (
	"encoding/json"
	"time"
)

// Record is one call. Its fields stand in the order of the field's own records.
type Record struct {
	EventVersion       string          `json:"eventVersion"`
	UserIdentity       Identity        `json:"userIdentity"`
	EventTime          time.Time       `json:"eventTime"`
	EventSource        string          `json:"eventSource"`
	EventName          string          `json:"eventName"`
	AWSRegion          string          `json:"awsRegion"`
	SourceIPAddress    string          `json:"sourceIPAddress"`
	UserAgent          string          `json:"userAgent"`
	ErrorCode          string          `json:"errorCode,omitempty"`
	ErrorMessage       string          `json:"errorMessage,omitempty"`
	RequestParameters  json.RawMessage `json:"requestParameters"` // null: none
	ResponseElements   json.RawMessage `json:"responseElements"`  // null: a call that reads
	RequestID          string          `json:"requestID"`
	EventID            string          `json:"eventID"`
	ReadOnly           bool            `json:"readOnly"`
	EventType          string          `json:"eventType"`
	ManagementEvent    bool            `json:"managementEvent"`
	EventCategory      string          `json:"eventCategory"`
	RecipientAccountID string          `json:"recipientAccountId"`
}

// Identity is who called.
type Identity struct {
	Type           string   `json:"type,omitempty"`
	PrincipalID    string   `json:"principalId,omitempty"`
	ARN            string   `json:"arn,omitempty"`
	AccountID      string   `json:"accountId,omitempty"`
	AccessKeyID    string   `json:"accessKeyId,omitempty"`
	UserName       string   `json:"userName,omitempty"`
	SessionContext *Session `json:"sessionContext,omitempty"`
}

// Session is the session that a role was used in, or that a user made of its own key: the issuer is empty then.
type Session struct {
	SessionIssuer       Issuer            `json:"sessionIssuer"`
	WebIDFederationData map[string]string `json:"webIdFederationData"`
	Attributes          Attributes        `json:"attributes"`
}

// Issuer is the role.
type Issuer struct {
	Type        string `json:"type,omitempty"`
	PrincipalID string `json:"principalId,omitempty"`
	ARN         string `json:"arn,omitempty"`
	AccountID   string `json:"accountId,omitempty"`
	UserName    string `json:"userName,omitempty"`
}

// Attributes of a session.
type Attributes struct {
	MFAAuthenticated string    `json:"mfaAuthenticated"`
	CreationDate     time.Time `json:"creationDate"`
}
