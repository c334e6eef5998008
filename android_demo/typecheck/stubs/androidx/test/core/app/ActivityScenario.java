// Stands for androidx.test:core:1.7.0: no more of it than the app uses.
package androidx.test.core.app;

import android.app.Activity;
import android.content.Intent;

public final class ActivityScenario<A extends Activity> implements AutoCloseable {
    public static <A extends Activity> ActivityScenario<A> launch(Intent startActivityIntent) { throw new RuntimeException(); }

    public ActivityScenario<A> onActivity(ActivityAction<A> action) { throw new RuntimeException(); }

    public ActivityScenario<A> recreate() { throw new RuntimeException(); }

    @Override public void close() { throw new RuntimeException(); }

    public interface ActivityAction<A extends Activity> {
        void perform(A activity);
    }
}
