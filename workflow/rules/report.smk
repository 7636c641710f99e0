# The report: figures and one page.


rule report:
    input:
        predictions=layout.of_learners("predictions.parquet"),
    output:
        f"{layout.folder}/report/report.html",
    log:
        f"{logs}/report.log",
    shell:
        "touch {output} 2> {log}"
