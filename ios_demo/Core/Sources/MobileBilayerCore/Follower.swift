/// A live driver's motion, frame by frame, and its neutral. No frame allocates; for one thread.
///
/// The first face seen is the neutral one, and becomes a better one while it goes on. While the face is lost its last motion is
/// held and then eased to the neutral one: see `easeToNeutral`.
public final class Follower {
    private let stabilizer: Stabilizer
    private let finder = Neutral(live: true)
    private let read = Motion()
    private let eased = Motion()
    private var between = [Float](repeating: 0, count: 2 * landmarkCount)
    private var motion: Motion?
    private var timeS = 0.0
    private var seenS = 0.0

    /// What means "as in the photo"; nil until there was a face.
    public private(set) var neutral: Motion?

    /// Whether the last frame had no face.
    public private(set) var lost = true

    public init(_ config: StabilizerConfig = .live) { stabilizer = Stabilizer(config) }

    /// The motion of a frame, or nil until there was a face. It lies in a buffer that the next call fills anew.
    ///
    /// `landmarks` 478 points of 2 or 3 numbers in pixels of the upright picture, checked; nil where no face was found
    /// `timeS` seconds, growing
    public func follow(_ landmarks: [Float]?, timeS: Double) -> Motion? {
        let stepS = timeS - self.timeS
        self.timeS = timeS
        lost = landmarks == nil
        guard let landmarks else {
            stabilizer.reset()
            guard let motion, let neutral else { return nil }
            return easeToNeutral(motion, neutral, lostS: timeS - seenS, out: eased, between: &between)
        }
        seenS = timeS
        let steady = stabilizer.stabilize(takeApart(landmarks, out: read), timeS: timeS)
        motion = steady
        finder.add(steady, stepS: min(max(stepS, 1e-3), 1))
        neutral = finder.motion()
        return steady
    }

    /// After a pause: the next face drives at once, with the neutral that is known.
    public func resume() { stabilizer.reset() }

    /// After the picture turned, or another camera or person: all begins anew.
    public func reset() {
        stabilizer.reset()
        finder.reset()
        motion = nil
        neutral = nil
        lost = true
    }
}
