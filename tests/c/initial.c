/* Every structure with its macro: no warning, in C and in C++. */
#include "graviton.h"

int main(void)
{
    graviton_blob_stat stat = GRAVITON_BLOB_STAT_INIT;
    graviton_store_stats stats = GRAVITON_STORE_STATS_INIT;
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    graviton_put_options put = GRAVITON_PUT_OPTIONS_INIT;
    graviton_get_options get = GRAVITON_GET_OPTIONS_INIT;
    graviton_gc_options gc = GRAVITON_GC_OPTIONS_INIT;
    graviton_gc_report collected = GRAVITON_GC_REPORT_INIT;
    graviton_copy_options copy = GRAVITON_COPY_OPTIONS_INIT;
    graviton_copy_report copied = GRAVITON_COPY_REPORT_INIT;
    graviton_repair_report repaired = GRAVITON_REPAIR_REPORT_INIT;
    graviton_repack_report repacked = GRAVITON_REPACK_REPORT_INIT;
    graviton_verify_options verify = GRAVITON_VERIFY_OPTIONS_INIT;
    graviton_verify_report verified = GRAVITON_VERIFY_REPORT_INIT;
    size_t sizes = stat.struct_size + stats.struct_size + receipt.struct_size + put.struct_size + get.struct_size
                   + gc.struct_size + collected.struct_size + copy.struct_size + copied.struct_size + repaired.struct_size
                   + repacked.struct_size + verify.struct_size + verified.struct_size;
    return sizes > 0 ? GRAVITON_OK : 1;
}
