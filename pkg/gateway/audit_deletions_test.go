package gateway

import "testing"

func TestCallsThatDeleteForGoodAreRecorded(t *testing.T) {
	for _, action := range []string{"amphora:DeleteSeries", "amphora:DeleteTenant", "amphora:UploadBlocks", "amphora:Admin"} {
		if isData(action) {
			t.Errorf("no record is kept of %s", action)
		}
	}
}
