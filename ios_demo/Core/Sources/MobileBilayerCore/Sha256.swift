import Foundation

#if canImport(CryptoKit)
    import CryptoKit
#endif

/// The SHA-256 of `data`, as 64 hex digits.
public func sha256(_ data: Data) -> String {
    #if canImport(CryptoKit)
        SHA256.hash(data: data).map { String(format: "%02x", $0) }.joined()
    #else
        plainSha256(data)
    #endif
}

/// The same, by FIPS 180-4.
func plainSha256(_ data: Data) -> String {
    var state: [UInt32] = [
        0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
    ]
    var words = [UInt32](repeating: 0, count: 64)
    data.withUnsafeBytes { all in
        let whole = all.count / 64 * 64
        for at in stride(from: 0, to: whole, by: 64) {
            block(UnsafeRawBufferPointer(rebasing: all[at..<(at + 64)]), &words, &state)
        }
        // What is left, a bit, zeros, and how many bits there were.
        var rest = [UInt8](all[whole...]) + [0x80]
        rest += [UInt8](repeating: 0, count: (120 - rest.count) % 64)
        let bits = UInt64(all.count) * 8
        for shift in stride(from: UInt64(56), through: 0, by: -8) { rest.append(UInt8(truncatingIfNeeded: bits >> shift)) }
        rest.withUnsafeBytes { all in
            for at in stride(from: 0, to: all.count, by: 64) {
                block(UnsafeRawBufferPointer(rebasing: all[at..<(at + 64)]), &words, &state)
            }
        }
    }
    return state.map { String(format: "%08x", $0) }.joined()
}

private let rounds: [UInt32] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
]

private func block(_ bytes: UnsafeRawBufferPointer, _ w: inout [UInt32], _ state: inout [UInt32]) {
    func turned(_ x: UInt32, _ by: UInt32) -> UInt32 { x >> by | x << (32 - by) }
    for i in 0..<16 { w[i] = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 4 * i, as: UInt32.self)) }
    for i in 16..<64 {
        let near = w[i - 15]
        let far = w[i - 2]
        let low: UInt32 = turned(near, 7) ^ turned(near, 18) ^ (near >> 3)
        let high: UInt32 = turned(far, 17) ^ turned(far, 19) ^ (far >> 10)
        w[i] = w[i - 16] &+ low &+ w[i - 7] &+ high
    }
    var (a, b, c, d) = (state[0], state[1], state[2], state[3])
    var (e, f, g, h) = (state[4], state[5], state[6], state[7])
    let table = rounds
    for i in 0..<64 {
        let s1: UInt32 = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)
        let choice: UInt32 = (e & f) ^ (~e & g)
        let first: UInt32 = h &+ s1 &+ choice &+ table[i] &+ w[i]
        let s0: UInt32 = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)
        let majority: UInt32 = (a & b) ^ (a & c) ^ (b & c)
        let second: UInt32 = s0 &+ majority
        (h, g, f, e) = (g, f, e, d &+ first)
        (d, c, b, a) = (c, b, a, first &+ second)
    }
    for (i, value) in [a, b, c, d, e, f, g, h].enumerated() { state[i] &+= value }
}
