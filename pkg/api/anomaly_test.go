package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAnomalyDetectorsAreAnUnknownOperationWithAnAnswerForPeople(t *testing.T) {
	a := newAPI(t, defaults(t), everything(t, &fakes{}))
	for _, c := range [][2]string{
		{"POST", "/workspaces/ws-1/anomalydetectors"}, {"GET", "/workspaces/ws-1/anomalydetectors"}, {"GET", "/workspaces/ws-1/anomalydetectors/ad-1"},
		{"PUT", "/workspaces/ws-1/anomalydetectors/ad-1"}, {"DELETE", "/workspaces/ws-1/anomalydetectors/ad-1"},
	} {
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest(c[0], c[1], strings.NewReader("{}")))
		var body map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Errorf("%s %s: %v in %s", c[0], c[1], err, w.Body)
		}
		h := w.Header()
		if w.Code != http.StatusNotFound || h.Get("X-Amzn-Errortype") != "UnknownOperationException" || h.Get("X-Amzn-Requestid") == "" || body["__type"] != "UnknownOperationException" || !strings.Contains(body["message"], "anomaly detectors do not exist here") {
			t.Errorf("%s %s: %d %v %v", c[0], c[1], w.Code, h, body)
		}
	}
}
