package dev.mobilebilayer.core

/**
 * Strict JSON, as far as manifests and results need it.
 *
 * Objects become [Map]s in the file's order, arrays [List]s, whole numbers [Long]s and others [Double]s. Refused: a key
 * twice, anything behind the value, numbers that JSON does not have (NaN), and nesting deeper than [DEEPEST].
 */
object Json {
    const val DEEPEST = 64

    /** The value of a JSON text. [where] names the file in errors. */
    fun parse(text: String, where: String): Any? = Parser(text, where).whole()

    /** Indented by one space, keys in the map's order; lists of numbers on one line. Floats must be finite. */
    fun write(value: Any?): String = StringBuilder().also { write(value, it, "\n") }.append('\n').toString()

    private fun write(value: Any?, out: StringBuilder, line: String) {
        when (value) {
            null, is Boolean, is Int, is Long -> out.append(value)
            is Double -> out.append(number(value))
            is Float -> out.append(number(value.toString().toDouble()))
            is String -> quote(value, out)
            is Map<*, *> -> all(value.entries, "{}", out, line) { (key, part), deeper ->
                quote(key as String, out)
                out.append(": ")
                write(part, out, deeper)
            }
            is List<*> if value.all { it is Number } -> value.joinTo(out, ", ", "[", "]") { write(it).trim() }
            is List<*> -> all(value, "[]", out, line) { part, deeper -> write(part, out, deeper) }
            else -> throw IllegalArgumentException("JSON has no ${value::class.simpleName}")
        }
    }

    private fun number(value: Double): String {
        if (!value.isFinite()) throw MobileBilayerError("$value is no number that JSON has. Leave the value out.")
        return if (value == Math.rint(value) && Math.abs(value) < 1e15) "${value.toLong()}.0" else value.toString()
    }

    private fun <T> all(
        parts: Collection<T>,
        brackets: String,
        out: StringBuilder,
        line: String,
        one: (T, String) -> Unit,
    ) {
        out.append(brackets[0])
        parts.forEachIndexed { i, part ->
            out.append(if (i > 0) "," else "").append(line).append(' ')
            one(part, "$line ")
        }
        if (parts.isNotEmpty()) out.append(line)
        out.append(brackets[1])
    }

    private fun quote(text: String, out: StringBuilder) {
        out.append('"')
        for (c in text) {
            when {
                c == '"' || c == '\\' -> out.append('\\').append(c)
                c == '\n' -> out.append("\\n")
                c < ' ' -> out.append("\\u%04x".format(c.code))
                else -> out.append(c)
            }
        }
        out.append('"')
    }

    private class Parser(private val text: String, private val where: String) {
        private var at = 0

        fun whole(): Any? {
            val value = value(0)
            space()
            if (at < text.length) throw error("something behind the end")
            return value
        }

        private fun value(depth: Int): Any? {
            if (depth > DEEPEST) throw error("nested deeper than $DEEPEST")
            space()
            return when (peek()) {
                '{' -> map(depth)
                '[' -> list(depth)
                '"' -> string()
                't' -> word("true", true)
                'f' -> word("false", false)
                'n' -> word("null", null)
                else -> number()
            }
        }

        private fun map(depth: Int): Map<String, Any?> {
            val out = LinkedHashMap<String, Any?>()
            at++
            if (next('}')) return out
            do {
                space()
                val key = string()
                if (!next(':')) throw error("no ':'")
                if (key in out) throw error("the key \"${key.take(40)}\" twice")
                out[key] = value(depth + 1)
            } while (next(','))
            if (!next('}')) throw error("no '}'")
            return out
        }

        private fun list(depth: Int): List<Any?> {
            val out = ArrayList<Any?>()
            at++
            if (next(']')) return out
            do out += value(depth + 1) while (next(','))
            if (!next(']')) throw error("no ']'")
            return out
        }

        private fun string(): String {
            if (peek() != '"') throw error("no string")
            at++
            val out = StringBuilder()
            while (true) {
                val c = peek()
                at++
                when {
                    c == '"' -> return out.toString()
                    c < ' ' -> throw error("a string without end")
                    c == '\\' -> out.append(escaped())
                    else -> out.append(c)
                }
            }
        }

        private fun escaped(): Char {
            val c = peek()
            at++
            return when (c) {
                '"', '\\', '/' -> c
                'b' -> '\b'
                'f' -> '\u000c'
                'n' -> '\n'
                'r' -> '\r'
                't' -> '\t'
                'u' -> {
                    val digits = text.substring(at, minOf(at + 4, text.length))
                    if (!HEX.matches(digits)) throw error("no four hex digits")
                    at += 4
                    digits.toInt(16).toChar()
                }
                else -> throw error("an unknown escape")
            }
        }

        private fun number(): Number {
            val digits = NUMBER.matchAt(text, at)?.value ?: throw error("no value")
            at += digits.length
            if (digits.all { it == '-' || it.isDigit() }) digits.toLongOrNull()?.let { return it }
            val value = digits.toDouble()
            if (!value.isFinite()) throw error("a number that is too large")
            return value
        }

        private fun <T> word(word: String, value: T): T {
            if (!text.startsWith(word, at)) throw error("no value")
            at += word.length
            return value
        }

        private fun next(c: Char): Boolean {
            space()
            return (at < text.length && text[at] == c).also { if (it) at++ }
        }

        private fun peek(): Char = if (at < text.length) text[at] else throw error("the end of the file")

        private fun space() {
            while (at < text.length && text[at] in " \t\r\n") at++
        }

        private fun error(what: String) =
            MobileBilayerError("$where is not JSON ($what at character $at). Export or copy it again.")
    }

    private val HEX = Regex("[0-9a-fA-F]{4}")
    private val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][-+]?[0-9]+)?")
}
