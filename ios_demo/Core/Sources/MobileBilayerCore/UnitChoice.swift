/// Where a runtime that has several compute units is to compute: measured on this phone, not guessed.
public struct UnitChoice: Equatable, Sendable {
    public let unit: String
    /// What a frame took there.
    public let ms: Double
    /// For people: what it took on each of the others, or why they don't work.
    public let notes: [String]

    /// One that is less than this much faster than an earlier one is as fast: times of phones are not exact.
    static let clear = 0.9

    /// The fastest of `units`, of those as fast the first; `measure` gives the ms of a frame there, and throws `MobileBilayerError` where
    /// it is not what it should be.
    ///
    /// Throws `MobileBilayerError` that tells of all if none works.
    public static func choose(_ units: [String], measure: (String) throws -> Double) throws -> UnitChoice {
        var best: (unit: String, ms: Double)?
        var said: [(unit: String, note: String)] = []
        for unit in units {
            do {
                let ms = try measure(unit)
                said.append((unit, "\(unit): \((ms * 10).rounded() / 10) ms a frame"))
                guard let known = best, !(ms < UnitChoice.clear * known.ms) else {
                    best = (unit, ms)
                    continue
                }
            } catch let error as MobileBilayerError {
                said.append((unit, "\(unit): \(error.message)"))
            }
        }
        guard let best else {
            let all = said.map(\.note).joined(separator: " ")
            throw MobileBilayerError("No compute unit gives what it should. \(all) Export the bundle again.")
        }
        return UnitChoice(unit: best.unit, ms: best.ms, notes: said.filter { $0.unit != best.unit }.map(\.note))
    }
}
