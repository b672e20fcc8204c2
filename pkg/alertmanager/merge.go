package alertmanager

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sort"
	"time"

	"github.com/go-openapi/strfmt"
	apiv2 "github.com/prometheus/alertmanager/api/v2"
	"github.com/prometheus/alertmanager/api/v2/models"

	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// first is the answer of any replica, where all say the same.
func first(in []*pb.Response) (*pb.Response, error) { return in[0], nil }

// mergeAlerts is all alerts that any replica has, each in its newest version.
func mergeAlerts(in []*pb.Response) (*pb.Response, error) {
	lists, err := read[models.GettableAlerts](in)
	if err != nil {
		return nil, err
	}
	return answer(mergedAlerts(lists...))
}

func mergedAlerts(lists ...models.GettableAlerts) models.GettableAlerts {
	newest := map[string]*models.GettableAlert{}
	for _, list := range lists {
		for _, a := range list {
			key := value(a.Fingerprint)
			if old := newest[key]; old == nil || when(old.UpdatedAt).Before(when(a.UpdatedAt)) {
				newest[key] = a
			}
		}
	}
	out := models.GettableAlerts{}
	for _, key := range slices.Sorted(maps.Keys(newest)) {
		out = append(out, newest[key])
	}
	return out
}

// mergeGroups is all groups that any replica has, each with all alerts.
func mergeGroups(in []*pb.Response) (*pb.Response, error) {
	lists, err := read[models.AlertGroups](in)
	if err != nil {
		return nil, err
	}
	byKey := map[string]*models.AlertGroup{}
	for _, list := range lists {
		for _, g := range list {
			labels, err := json.Marshal(g.Labels)
			if err != nil {
				return nil, fmt.Errorf("labels of a group: %w", err)
			}
			key := receiverOf(g) + "\xff" + string(labels)
			if old := byKey[key]; old != nil {
				old.Alerts = mergedAlerts(old.Alerts, g.Alerts)
			} else {
				byKey[key] = g
			}
		}
	}
	out := models.AlertGroups{}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		out = append(out, byKey[key])
	}
	// As a single alertmanager sorts: by labels, then by receiver.
	sort.SliceStable(out, func(i, j int) bool {
		a, b := apiv2.APILabelSetToModelLabelSet(out[i].Labels), apiv2.APILabelSetToModelLabelSet(out[j].Labels)
		if a.Equal(b) {
			return receiverOf(out[i]) < receiverOf(out[j])
		}
		return a.Before(b)
	})
	return answer(out)
}

func receiverOf(g *models.AlertGroup) string {
	if g.Receiver == nil {
		return ""
	}
	return value(g.Receiver.Name)
}

// mergeSilences is all silences that any replica has, each in its newest version.
func mergeSilences(in []*pb.Response) (*pb.Response, error) {
	lists, err := read[models.GettableSilences](in)
	if err != nil {
		return nil, err
	}
	newest := map[string]*models.GettableSilence{}
	for _, list := range lists {
		for _, s := range list {
			if old := newest[value(s.ID)]; old == nil || when(old.UpdatedAt).Before(when(s.UpdatedAt)) {
				newest[value(s.ID)] = s
			}
		}
	}
	out := models.GettableSilences{}
	for _, id := range slices.Sorted(maps.Keys(newest)) {
		out = append(out, newest[id])
	}
	apiv2.SortSilences(out)
	return answer(out)
}

// newestSilence is one silence in its newest version.
func newestSilence(in []*pb.Response) (*pb.Response, error) {
	best := in[0]
	var at time.Time
	for _, r := range in {
		if r.GetStatus() == http.StatusNotFound {
			continue
		}
		var s models.GettableSilence
		if err := json.Unmarshal(r.GetBody(), &s); err != nil {
			return nil, fmt.Errorf("answer of a replica: %w", err)
		}
		if t := when(s.UpdatedAt); best.GetStatus() == http.StatusNotFound || at.Before(t) {
			best, at = r, t
		}
	}
	return best, nil
}

// read decodes the answers of replicas that have one.
func read[T any](in []*pb.Response) ([]T, error) {
	var out []T
	for _, r := range in {
		if r.GetStatus() != http.StatusOK {
			continue
		}
		var x T
		if err := json.Unmarshal(r.GetBody(), &x); err != nil {
			return nil, fmt.Errorf("answer of a replica: %w", err)
		}
		out = append(out, x)
	}
	return out, nil
}

func answer(x any) (*pb.Response, error) {
	body, err := json.Marshal(x)
	if err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	return &pb.Response{Status: http.StatusOK, Body: append(body, '\n'), Headers: []*pb.Header{
		{Name: "Content-Type", Values: []string{"application/json"}}, {Name: "Cache-Control", Values: []string{"no-store"}}}}, nil
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func when(t *strfmt.DateTime) time.Time {
	if t == nil {
		return time.Time{}
	}
	return time.Time(*t)
}
