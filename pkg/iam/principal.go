package iam

import "time"

// Principal is who acts: somebody that was authenticated, with what is attached to them.
type Principal struct {
	Account string // 12 digits
	ARN     string
	ID      string // unique and never used again
	Type    string // Root, IAMUser, AssumedRole, WebIdentityUser: as audit records have it
	Name    string // of the user, or of the session
	Root    bool   // of the account: no policy is needed
	// RoleARN and RoleID are of the role that a session acts in.
	RoleARN, RoleID string
	// Federated is the ARN of the provider that vouches for a principal of a trust policy.
	Federated string
	AccessKey string // or the id of the token
	Tags      map[string]string
	// Since is when a session was made; zero for others.
	Since time.Time
	// MFA is when the user of a session showed the code of a device for it; zero: it did not.
	MFA time.Time

	Policies []*Policy
	Boundary *Policy   // nil: none
	Sessions []*Policy // what a session or a token is held to; nil: nothing
	// Workspace is the only one a token may be used for; empty: any.
	Workspace string
}

// The types of principals.
const (
	TypeRoot    = "Root"
	TypeUser    = "IAMUser"
	TypeSession = "AssumedRole"
	TypeWeb     = "WebIdentityUser"
)
