// Stands for Android's own class of API 26 (the android.jar here is of API 23): no more of it than core uses.
package java.time.temporal;

public interface TemporalUnit {
}
