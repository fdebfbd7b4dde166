// The library that the CUDA toolkit ships to link against: it has the names and answers every call with one error.
#define STUB(name)                                                                                                     \
    extern "C" __attribute__((visibility("default"))) int name() { return 34; }
STUB(cuInit) STUB(cuDriverGetVersion) STUB(cuDeviceGet) STUB(cuDeviceGetCount) STUB(cuDeviceGetName)
STUB(cuDeviceGetAttribute) STUB(cuDeviceTotalMem_v2) STUB(cuDevicePrimaryCtxRetain) STUB(cuDevicePrimaryCtxRelease_v2)
STUB(cuCtxGetCurrent) STUB(cuCtxSetCurrent) STUB(cuCtxSynchronize) STUB(cuModuleLoadData) STUB(cuModuleGetFunction)
STUB(cuModuleUnload) STUB(cuLaunchKernel) STUB(cuMemAlloc_v2) STUB(cuMemFree_v2) STUB(cuMemAllocAsync)
STUB(cuMemFreeAsync) STUB(cuMemHostAlloc) STUB(cuMemFreeHost) STUB(cuMemcpyHtoDAsync_v2) STUB(cuMemcpyDtoHAsync_v2)
STUB(cuMemcpyDtoDAsync_v2) STUB(cuMemsetD8Async) STUB(cuStreamCreate) STUB(cuStreamDestroy_v2)
STUB(cuStreamSynchronize) STUB(cuStreamWaitEvent) STUB(cuEventCreate) STUB(cuEventDestroy_v2) STUB(cuEventRecord)
STUB(cuEventSynchronize) STUB(cuEventQuery) STUB(cuMemGetInfo_v2) STUB(cuFuncSetAttribute) STUB(cuFuncGetAttribute)

extern "C" __attribute__((visibility("default"))) int cuGetErrorName(int, const char **words) {
    *words = "CUDA_ERROR_STUB_LIBRARY";
    return 0;
}
extern "C" __attribute__((visibility("default"))) int cuGetErrorString(int, const char **words) {
    *words = "CUDA driver is a stub library";
    return 0;
}
