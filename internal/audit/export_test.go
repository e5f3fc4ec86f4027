package audit

// The bounds that the tests are about.
const (
	SumLeading    = sumLeading
	SumGuests     = sumGuests
	BufferSize    = bufferSize
	ClosePatience = closePatience
	FollowerSize  = followerSize
)
