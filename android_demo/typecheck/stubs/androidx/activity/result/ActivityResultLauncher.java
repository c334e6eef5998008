// Stands for androidx.activity:activity:1.12.4: no more of it than the app uses.
package androidx.activity.result;

public abstract class ActivityResultLauncher<I> {
    public void launch(I input) { throw new RuntimeException(); }
}
