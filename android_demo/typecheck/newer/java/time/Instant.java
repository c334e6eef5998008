// Stands for Android's own class of API 26 (the android.jar here is of API 23): no more of it than core uses.
package java.time;

import java.time.temporal.TemporalUnit;

public final class Instant {
    public static Instant now() { throw new RuntimeException(); }

    public Instant truncatedTo(TemporalUnit unit) { throw new RuntimeException(); }
}
