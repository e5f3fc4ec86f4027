package audit

// The bounds that the tests are about.
const (
	SumLeading    = sumLeading
	BufferSize    = bufferSize
	ClosePatience = closePatience
	FollowerSize  = followerSize
)
