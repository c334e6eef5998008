// A whole clip, with the frames behind at hand: for a recorded driver, not for a camera. It may allocate.

// Kernels are for frames that are so many seconds or less apart; from there to the second they fade, for that is motion.
private let kernelS = 1.0 / 24
private let noKernelS = 1.0 / 10
private let block = 256  // frames at once
private let behind = 64  // and how many more the way back begins from

/// A whole `track`: nothing comes late, and fast motion keeps most of its height. One motion a frame, each of its own, to `use`.
///
/// Where no face was found, landmarks are only taken apart; what comes behind starts anew. Each frame is first joined with its
/// neighbours by the kernel of each part; then the One-Euro filter goes once forwards and, from there, backwards.
public func stabilize(_ track: Track, config: StabilizerConfig = .file, use: (Motion) throws -> Void) rethrows {
    let times = track.timesS
    var first = 0
    while first < times.count {
        // Frames that go together: all with a face and no gap between, or all without a face.
        var last = first + 1
        while last < times.count, track.found[last] == track.found[first], times[last] - times[last - 1] <= config.gapS { last += 1 }
        if track.found[first] {
            try calm(track.landmarks[first..<last], times[first..<last], config, use)
        } else {
            for landmarks in track.landmarks[first..<last] { try use(takeApart(landmarks)) }
        }
        first = last
    }
}

private func calm(
    _ landmarks: ArraySlice<[Float]>, _ times: ArraySlice<Double>, _ config: StabilizerConfig, _ use: (Motion) throws -> Void
) rethrows {
    let forwards = Stabilizer(config)
    let backwards = Stabilizer(config)
    let whose = parts()
    var ready: [Motion] = []
    for start in stride(from: times.startIndex, to: times.endIndex, by: block) {
        let stop = min(start + block, times.endIndex)
        for i in (start + ready.count)..<min(stop + behind, times.endIndex) {
            ready.append(copyOf(forwards.stabilize(blend(landmarks, times, i, config, whose), timeS: times[i])))
        }
        backwards.reset()
        var calmed: [Motion] = []
        for i in ready.indices.reversed() { calmed.append(copyOf(backwards.stabilize(ready[i], timeS: -times[start + i]))) }
        for motion in calmed.reversed().prefix(stop - start) { try use(motion) }
        ready.removeFirst(stop - start)
    }
}

private func copyOf(_ motion: Motion) -> Motion {
    let out = Motion()
    out.set(motion)
    return out
}

/// A frame joined with its neighbours; the first and the last frame of all stand for those that are missing.
private func blend(
    _ landmarks: ArraySlice<[Float]>, _ times: ArraySlice<Double>, _ i: Int, _ config: StabilizerConfig, _ whose: [Int]
) -> Motion {
    let (first, last) = (times.startIndex, times.endIndex - 1)
    let (before, after) = (max(i - 1, first), min(i + 1, last))
    let stepS = (times[after] - times[before]) / Double(max(after - before, 1))
    let part = min(max((noKernelS - stepS) / (noKernelS - kernelS), 0), 1)
    let kernels = config.parts.map(\.kernel)
    let out = Motion()
    var joined = [Double](repeating: 0, count: 8)
    var numbers = joined
    for k in 0...(2 * reach) {
        let near = takeApart(landmarks[min(max(i + k - reach, first), last)])
        let kept = alone[k] * (1 - part)  // where frames are far apart, kernels fade to this
        numbersOf(near.pose, &numbers)
        for n in 0..<8 { joined[n] += (part * config.pose.kernel[k] + kept) * numbers[n] }
        let weights = kernels.map { part * $0[k] + kept }
        for n in near.face.indices { out.face[n] += weights[whose[n / 3]] * near.face[n] }
    }
    poseOf(&joined, out.pose)
    return out
}
