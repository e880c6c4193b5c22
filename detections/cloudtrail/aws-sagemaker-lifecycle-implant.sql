/*
title: Start script of a notebook swapped
severity: high
attack: [T1059, T1578.005, T1543]
window: 70m
every: 7m
entity: [cloud_account_uid, notebook]
summary: "notebook {notebook} of account {cloud_account_uid} was stopped, got start script {script} and was started, by {actors}"
triage: |
  1. Read the script (DescribeNotebookInstanceLifecycleConfig): it runs as root at each start.
  2. What may the notebook's role do? Treat its credentials as taken since the start.
  3. Stop the notebook, detach the script, keep its volume.
  4. Who made the script, and is it attached elsewhere?
benign: Maintenance by the team of the platform.
references:
  - https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateNotebookInstance.html
  - https://docs.aws.amazon.com/sagemaker/latest/dg/notebook-lifecycle-config.html
*/
SELECT cloud_account_uid,
       raw->'requestParameters'->>'notebookInstanceName' AS notebook,
       min(time) FILTER (WHERE event_name = 'StopNotebookInstance') AS stopped,
       max(time) FILTER (WHERE event_name = 'UpdateNotebookInstance') AS changed,
       max(time) FILTER (WHERE event_name = 'StartNotebookInstance') AS started,
       max(raw->'requestParameters'->>'lifecycleConfigName') AS script,
       array_to_string(array_sort(array_agg(DISTINCT principal)), ', ') AS actors
FROM   cloudtrail
WHERE  event_source = 'sagemaker.amazonaws.com' AND status = 'Success'
  AND  (event_name IN ('StopNotebookInstance', 'StartNotebookInstance')
     OR (event_name = 'UpdateNotebookInstance'
         AND raw->'requestParameters'->>'lifecycleConfigName' IS NOT NULL))
GROUP  BY cloud_account_uid, raw->'requestParameters'->>'notebookInstanceName'
HAVING stopped <= changed + INTERVAL '2 seconds' AND changed <= started + INTERVAL '2 seconds'
   AND started <= stopped + INTERVAL '60 minutes'
