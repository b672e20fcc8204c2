// Package remotewrite owns the encoding of Prometheus remote-write bodies, versions 1.0 and 2.0. It
// reads them without materializing them: it walks the encoded bytes and reports where each series,
// sample, histogram, exemplar and piece of metadata lies.
package remotewrite

import "time"

// Version is the version of the remote-write protocol.
type Version uint8

// The versions.
const (
	V1 Version = 1 // prometheus.WriteRequest
	V2 Version = 2 // io.prometheus.write.v2.Request
)

// Request is one push as received, decompressed. Body belongs to the caller and must not change
// until the push has been answered; nobody keeps a reference to it afterwards.
type Request struct {
	Version Version
	Body    []byte
	// Origin is the protocol that clients sent the push by.
	Origin Origin
	// SkipLabelNames and SkipLabelCount leave out a check at the wish of the sender.
	SkipLabelNames, SkipLabelCount bool
	// Refused is how many data points could not be translated from that protocol.
	Refused int
	// Handed says that this is the part of a request that another distributor got, where it was counted.
	Handed bool
}

// Origin is the protocol that a push came by.
type Origin uint8

// The origins.
const (
	RemoteWrite Origin = iota
	OTLP
	Influx
	Import // of text or JSON lines
	NumOrigins
)

// Written counts what a push stored, for the X-Prometheus-Remote-Write-*-Written headers.
type Written struct {
	Samples, Histograms, Exemplars int

	// Delay is how long after the arrival of the push its tenant wants the answer to leave, if all
	// was stored.
	Delay time.Duration
}
