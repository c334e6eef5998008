// Stands for Apple's simd/simd.h: metal_stdlib beside it has what is used.
