package dev.mobilebilayer.core

import java.util.concurrent.locks.LockSupport

/**
 * From one thread to another: the latest frame wins. Three buffers go around, so nothing is allocated, no queue can grow, and
 * neither side waits for the other.
 *
 * The writer fills [writing] and calls [publish]; the reader calls [take] and may read what it got until it takes again.
 */
class LatestFrame<T : Any>(first: T, second: T, third: T) {
    /** The writer's own: what [publish] hands over. */
    @Volatile
    var writing: T = first
        private set

    private var waiting = second
    private var reading = third
    private var fresh = false

    @Volatile
    private var reader: Thread? = null

    /** Frames that were overwritten before somebody took them. */
    @get:Synchronized
    var dropped = 0L
        private set

    /** Hand [writing] over, in place of what nobody took; there is another one to fill. */
    fun publish() {
        synchronized(this) {
            if (fresh) dropped++
            val filled = writing
            writing = waiting
            waiting = filled
            fresh = true
        }
        reader?.let { LockSupport.unpark(it) }
    }

    /** The latest frame, or null if it was taken already. */
    @Synchronized
    fun take(): T? {
        if (!fresh) return null
        fresh = false
        val taken = waiting
        waiting = reading
        reading = taken
        return taken
    }

    /** The same, and waits for one up to [timeoutNs], less when the thread is interrupted. For one reader at a time. */
    fun await(timeoutNs: Long): T? {
        val until = System.nanoTime() + timeoutNs
        reader = Thread.currentThread()
        try {
            while (true) {
                take()?.let { return it }
                val left = until - System.nanoTime()
                if (left <= 0 || Thread.currentThread().isInterrupted) return null
                LockSupport.parkNanos(this, left)
            }
        } finally {
            reader = null
        }
    }
}
