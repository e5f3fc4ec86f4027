package audit

// Limits that the tests check.
const (
	SumLeading    = sumLeading
	SumGuests     = sumGuests
	BufferSize    = bufferSize
	ClosePatience = closePatience
	FollowerSize  = followerSize
)
