// Stands for androidx.activity:activity:1.12.4: no more of it than the app uses.
package androidx.activity.result;

public interface ActivityResultCallback<O> {
    void onActivityResult(O result);
}
