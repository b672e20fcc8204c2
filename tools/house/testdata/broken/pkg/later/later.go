// Later is misnamed in its comment.
package later

// X is used by a room below.
const X = 1
