"""What others print while they train, one made-up log of each shape, and the curves that are in it."""

import pytest

from emacheck.logs import read_log

# ruff: noqa: E501 - lines of a log are as long as they are

SHAPES = {
    "imagenet": (
        """\
Use GPU: 0 for training
=> creating model 'resnet18'
Epoch: [0][  1/5005]\tTime  9.921 ( 9.921)\tData  8.000 ( 8.000)\tLoss 7.1022e+00 (7.1022e+00)\tAcc@1   0.00 (  0.00)\tAcc@5   1.56 (  1.56)
Epoch: [0][ 11/5005]\tTime  0.121 ( 1.021)\tData  0.000 ( 0.700)\tLoss 7.0822e+00 (7.0922e+00)\tAcc@1   0.00 (  0.10)\tAcc@5   0.56 (  0.66)
Epoch: [0][ 21/5005]\tTime  0.121 ( 1.021)\tData  0.000 ( 0.700)\tLoss 6.9822e+00 (7.0422e+00)\tAcc@1   0.00 (  0.10)\tAcc@5   0.56 (  0.66)
Test: [  1/196]\tTime  4.1 ( 4.1)\tLoss 6.5e+00 (6.5e+00)\tAcc@1   3.12 (  3.12)\tAcc@5   9.38 (  9.38)
Test: [ 11/196]\tTime  1.1 ( 1.1)\tLoss 6.6e+00 (6.55e+00)\tAcc@1   3.12 (  3.12)\tAcc@5   9.38 (  9.38)
 *   Acc@1 3.216 Acc@5 10.500
Epoch: [1][  1/5005]\tTime  9.921 ( 9.921)\tData  8.000 ( 8.000)\tLoss 5.1022e+00 (5.1022e+00)\tAcc@1   0.00 (  0.00)\tAcc@5   1.56 (  1.56)
Epoch: [1][ 11/5005]\tTime  9.921 ( 9.921)\tData  8.000 ( 8.000)\tLoss 5.0022e+00 (5.0522e+00)\tAcc@1   0.00 (  0.00)\tAcc@5   1.56 (  1.56)
""",
        [("loss", False, [(1, 7.1022), (11, 7.0822), (21, 6.9822), (5006, 5.1022), (5016, 5.0022)])],
        1,
    ),
    "imagenet_old": (
        """\
Epoch: [0][0/391]\tTime 0.52 (0.52)\tData 0.12 (0.12)\tLoss 4.7023 (4.7023)\tPrec@1 0.781 (0.781)
Epoch: [0][50/391]\tTime 0.12 (0.12)\tData 0.02 (0.02)\tLoss 3.7023 (4.2023)\tPrec@1 10.781 (5.781)
Test: [0/79]\tTime 0.2 (0.2)\tLoss 3.6 (3.6)\tPrec@1 12.5 (12.5)
 * Prec@1 11.5
""",
        [("loss", False, [(0, 4.7023), (50, 3.7023)])],
        1,
    ),
    "torchvision": (
        """\
Not using distributed mode
Epoch: [0]  [   0/1000]  eta: 0:20:00  lr: 0.100000  img/s: 40.2  loss: 6.9570 (6.9570)  acc1: 0.0000 (0.0000)  acc5: 0.0000 (0.0000)  time: 1.2000  data: 0.7000  max mem: 4000
Epoch: [0]  [  10/1000]  eta: 0:10:00  lr: 0.100000  img/s: 90.2  loss: 6.8570 (6.9000)  acc1: 0.0000 (0.5000)  acc5: 0.0000 (1.0000)  time: 0.2000  data: 0.0100  max mem: 4000
Epoch: [0] Total time: 0:05:00
Test:   [ 0/100]  eta: 0:01:00  loss: 5.5000 (5.5000)  acc1: 6.2500 (6.2500)  acc5: 18.7500 (18.7500)  time: 0.6000  data: 0.5000  max mem: 4000
Test:  Total time: 0:00:20
Test:  Acc@1 5.300 Acc@5 15.100
Epoch: [1]  [   0/1000]  eta: 0:20:00  lr: 0.100000  img/s: 40.2  loss: 5.9570 (5.9570)  acc1: 0.0000 (0.0000)  acc5: 0.0000 (0.0000)  time: 1.2000  data: 0.7000  max mem: 4000
Epoch: [1]  [  10/1000]  eta: 0:20:00  lr: 0.100000  img/s: 40.2  loss: 5.8570 (5.9570)  acc1: 0.0000 (0.0000)  acc5: 0.0000 (0.0000)  time: 1.2000  data: 0.7000  max mem: 4000
""",
        [("loss", False, [(0, 6.957), (10, 6.857), (1000, 5.957), (1010, 5.857)])],
        1,
    ),
    "mnist": (
        """\
Train Epoch: 1 [0/60000 (0%)]\tLoss: 2.282550
Train Epoch: 1 [640/60000 (1%)]\tLoss: 1.384441
Train Epoch: 1 [1280/60000 (2%)]\tLoss: 0.384441

Test set: Average loss: 0.0472, Accuracy: 9844/10000 (98%)

Train Epoch: 2 [0/60000 (0%)]\tLoss: 0.065440
Train Epoch: 2 [640/60000 (1%)]\tLoss: 0.165440
""",
        [("loss", False, [(0, 2.28255), (640, 1.384441), (1280, 0.384441), (60000, 0.06544), (60640, 0.16544)])],
        1,
    ),
    "timm": (
        """\
Training with a single process on 1 device (cuda:0).
Model resnet50 created, param count:25557032
Train: 0 [   0/1251 (  0%)]  Loss: 6.949 (6.95)  Time: 5.123s,   49.97/s  (5.123s,   49.97/s)  LR: 1.000e-06  Data: 2.117 (2.117)
Train: 0 [  50/1251 (  4%)]  Loss: 6.935 (6.94)  Time: 0.338s,  757.59/s  (0.459s,  557.52/s)  LR: 1.000e-06  Data: 0.015 (0.058)
Test: [   0/195]  Time: 2.1 (2.1)  Loss:  6.911 ( 6.911)  Acc@1:  0.0000 (  0.0000)  Acc@5:  0.7812 (  0.7812)
Test: [  50/195]  Time: 2.1 (2.1)  Loss:  6.921 ( 6.915)  Acc@1:  0.0000 (  0.0000)  Acc@5:  0.7812 (  0.7812)
Current checkpoints:
 ('./output/train/checkpoint-0.pth.tar', 0.1)
Train: 1 [   0/1251 (  0%)]  Loss: 6.849 (6.85)  Time: 5.123s,   49.97/s  (5.123s,   49.97/s)  LR: 1.000e-06  Data: 2.117 (2.117)
Train: 1 [  50/1251 (  4%)]  Loss: 6.835 (6.84)  Time: 0.338s,  757.59/s  (0.459s,  557.52/s)  LR: 1.000e-06  Data: 0.015 (0.058)
*** Best metric: 0.1 (epoch 0)
""",
        [("loss", False, [(0, 6.949), (50, 6.935), (1251, 6.849), (1301, 6.835)])],
        1,
    ),
    "timm_info": (
        """\
INFO:train:Train: 0 [   0/1251 (  0%)]  Loss:  6.949431 (6.9494)  Time: 5.123s,   49.97/s  (5.123s,   49.97/s)  LR: 1.000e-06  Data: 2.117 (2.117)
INFO:train:Train: 0 [  50/1251 (  4%)]  Loss:  6.935431 (6.9425)  Time: 0.338s
INFO:train:Test: [   0/195]  Time: 2.1 (2.1)  Loss:  6.911 ( 6.911)
""",
        [("loss", False, [(0, 6.949431), (50, 6.935431)])],
        1,
    ),
    "timm_summary": (
        """\
epoch,train_loss,eval_loss,eval_top1,eval_top5,lr
0,6.9123,6.5,1.2,4.3,1e-06
1,6.1123,5.5,11.2,14.3,1e-03
2,5.1123,4.5,12.2,24.3,1e-03
""",
        [("loss", False, [(0, 6.9123), (1, 6.1123), (2, 5.1123)]), ("loss", True, [(0, 6.5), (1, 5.5), (2, 4.5)])],
        1,
    ),
    "swin": (
        """\
[2031-03-03 12:00:00 swin_tiny](main.py 200): INFO Train: [0/300][0/1251]\teta 1:02:03 lr 0.000001\ttime 2.9 (2.9)\tloss 6.9401 (6.9401)\tgrad_norm 1.2345 (1.2345)\tmem 9000MB
[2031-03-03 12:00:05 swin_tiny](main.py 200): INFO Train: [0/300][10/1251]\teta 1:02:03 lr 0.000001\ttime 2.9 (2.9)\tloss 6.8401 (6.8901)\tgrad_norm 1.3345 (1.2345)\tmem 9000MB
[2031-03-03 12:10:05 swin_tiny](main.py 210): INFO EPOCH 0 training takes 0:10:00
[2031-03-03 12:10:09 swin_tiny](main.py 240): INFO Test: [0/98]\tTime 2.0 (2.0)\tLoss 6.7001 (6.7001)\tAcc@1 1.5 (1.5)\tAcc@5 5.0 (5.0)\tMem 9000MB
[2031-03-03 12:10:09 swin_tiny](main.py 245): INFO  * Acc@1 1.500 Acc@5 5.200
[2031-03-03 12:11:00 swin_tiny](main.py 200): INFO Train: [1/300][0/1251]\teta 1:02:03 lr 0.000001\ttime 2.9 (2.9)\tloss 5.9401 (5.9401)\tgrad_norm 1.2345 (1.2345)\tmem 9000MB
""",
        [("loss", False, [(0, 6.9401), (10, 6.8401), (1251, 5.9401)])],
        1,
    ),
    "hf_print": (
        """\
***** Running training *****
  Num examples = 1,000
  Num Epochs = 3
  Total optimization steps = 300
  0%|          | 0/300 [00:00<?, ?it/s]
{'loss': 2.5012, 'grad_norm': 3.21, 'learning_rate': 4.8e-05, 'epoch': 0.1}
  3%|3         | 10/300 [00:10<05:00,  1.0s/it]
{'loss': 2.4012, 'grad_norm': 3.11, 'learning_rate': 4.7e-05, 'epoch': 0.2}
{'loss': 2.3012, 'grad_norm': nan, 'learning_rate': 4.6e-05, 'epoch': 0.3}
{'eval_loss': 2.2, 'eval_accuracy': 0.5, 'eval_runtime': 1.2, 'eval_samples_per_second': 80.0, 'eval_steps_per_second': 8.0, 'epoch': 0.3}
{'loss': 2.2012, 'grad_norm': 3.0, 'learning_rate': 4.5e-05, 'epoch': 0.4}
{'train_runtime': 120.0, 'train_samples_per_second': 20.0, 'train_steps_per_second': 2.5, 'train_loss': 2.35, 'epoch': 3.0}
""",
        [("loss", False, [(1, 2.5012), (2, 2.4012), (3, 2.3012), (4, 2.2012)]), ("loss", True, [(3, 2.2)])],
        1,
    ),
    "megatron": (
        """\
 [2031-01-01 00:00:00] iteration        1/    1000 | consumed samples:           32 | elapsed time per iteration (ms): 5000.1 | throughput per GPU (TFLOP/s/GPU): 10.2 | learning rate: 1.500000E-07 | global batch size:    32 | lm loss: 1.098765E+01 | loss scale: 1.0 | grad norm: 22.101 | num zeros: 0.0 | params norm: 300.5 | number of skipped iterations:   0 | number of nan iterations:   0 |
 [2031-01-01 00:00:05] iteration        2/    1000 | consumed samples:           64 | elapsed time per iteration (ms): 500.1 | throughput per GPU (TFLOP/s/GPU): 100.2 | learning rate: 3.000000E-07 | global batch size:    32 | lm loss: 1.088765E+01 | loss scale: 1.0 | grad norm: 21.101 | num zeros: 0.0 | params norm: 300.5 | number of skipped iterations:   0 | number of nan iterations:   0 |
(min, max) time across ranks (ms):
    evaluate .......................................: (1000.00, 1000.10)
----------------------------------------------------------------------------------------------
 validation loss at iteration 2 | lm loss value: 1.070000E+01 | lm loss PPL: 4.435542E+04 |
----------------------------------------------------------------------------------------------
 [2031-01-01 00:00:09] iteration        3/    1000 | consumed samples:           96 | elapsed time per iteration (ms): 500.1 | learning rate: 4.500000E-07 | global batch size:    32 | lm loss: 1.078765E+01 | loss scale: 1.0 | grad norm: 20.101 | number of skipped iterations:   0 | number of nan iterations:   0 |
""",
        [("loss", False, [(1, 10.98765), (2, 10.88765), (3, 10.78765)]), ("loss", True, [(2, 10.7)])],
        1,
    ),
    "deepspeed": (
        """\
[2031-01-01 00:00:00,123] [INFO] [logging.py:96:log_dist] [Rank 0] step=10, skipped=0, lr=[1e-05], mom=[(0.9, 0.999)]
steps: 10 loss: 7.1234 iter time (s): 0.500 samples/sec: 64.0
[2031-01-01 00:00:05,123] [INFO] [logging.py:96:log_dist] [Rank 0] step=20, skipped=0, lr=[2e-05], mom=[(0.9, 0.999)]
steps: 20 loss: 6.1234 iter time (s): 0.500 samples/sec: 64.0
""",
        [("loss", False, [(10, 7.1234), (20, 6.1234)])],
        1,
    ),
    "nanogpt": (
        """\
step 0: train loss 10.9885, val loss 10.9870
iter 0: loss 10.9886, time 30000.12ms, mfu -100.00%
iter 10: loss 10.1886, time 300.12ms, mfu 30.00%
iter 20: loss 9.1886, time 300.12ms, mfu 30.00%
step 20: train loss 9.1000, val loss 9.1100
iter 30: loss 8.1886, time 300.12ms, mfu 30.00%
""",
        [
            ("loss", False, [(0, 10.9886), (10, 10.1886), (20, 9.1886), (30, 8.1886)]),
            ("loss", True, [(0, 10.987), (20, 9.11)]),
        ],
        1,
    ),
    "torchtitan": (
        """\
[titan] 2031-01-01 00:00:00,123 - root - INFO - Training starts at step 1
[titan] 2031-01-01 00:00:01,123 - root - INFO - step:  1  loss:  8.1234  grad_norm:  1.4321  memory:  0.91GiB(0.96%)  tps: 6,456  tflops: 0.47  mfu: 0.15%
[titan] 2031-01-01 00:00:02,123 - root - INFO - step: 10  loss:  4.1234  grad_norm:  2.4321  memory:  0.91GiB(0.96%)  tps: 66,456  tflops: 4.47  mfu: 1.15%
""",
        [("loss", False, [(1, 8.1234), (10, 4.1234)])],
        1,
    ),
    "torchtitan_color": (
        """\
[rank0]:[titan] 2031-01-01 00:00:01,123 - root - INFO - \x1b[31mstep:  1  \x1b[32mloss:  8.1234  \x1b[38;2;180;60;0mgrad_norm:  1.4321  \x1b[38;2;54;234;195mmemory:  0.91GiB(0.96%)  \x1b[34mtps: 6,456\x1b[39m
[rank0]:[titan] 2031-01-01 00:00:02,123 - root - INFO - \x1b[31mstep: 10  \x1b[32mloss:  4.1234  \x1b[38;2;180;60;0mgrad_norm:  2.4321  \x1b[38;2;54;234;195mmemory:  0.91GiB(0.96%)  \x1b[34mtps: 6,456\x1b[39m
""",
        [("loss", False, [(1, 8.1234), (10, 4.1234)])],
        1,
    ),
    "detectron2": (
        """\
[01/01 00:00:00 d2.engine.train_loop]: Starting training from iteration 0
[01/01 00:00:10 d2.utils.events]:  eta: 1:02:03  iter: 19  total_loss: 5.672  loss_cls: 4.5  loss_box_reg: 0.01  loss_rpn_cls: 0.69  loss_rpn_loc: 0.2    time: 0.5  last_time: 0.4  data_time: 0.01  last_data_time: 0.02   lr: 0.00039962  max_mem: 4000M
[01/01 00:00:20 d2.utils.events]:  eta: 1:02:03  iter: 39  total_loss: 4.672  loss_cls: 3.5  loss_box_reg: 0.01  loss_rpn_cls: 0.69  loss_rpn_loc: 0.2    time: 0.5  last_time: 0.4  data_time: 0.01  last_data_time: 0.02   lr: 0.00079962  max_mem: 4000M
""",
        [("loss", False, [(19, 5.672), (39, 4.672)])],
        1,
    ),
    "detectron2_json": (
        """\
{"data_time": 0.01, "iteration": 19, "loss_cls": 4.5, "loss_box_reg": 0.01, "lr": 0.0004, "time": 0.5, "total_loss": 5.672}
{"data_time": 0.01, "iteration": 39, "loss_cls": 3.5, "loss_box_reg": 0.01, "lr": 0.0008, "time": 0.5, "total_loss": 4.672}
""",
        [("loss", False, [(19, 5.672), (39, 4.672)])],
        1,
    ),
    "keras": (
        """\
Epoch 1/3

  1/100 [..............................] - ETA: 1:00 - loss: 2.5000 - accuracy: 0.1000\b\b\b\b
 50/100 [==============>...............] - ETA: 0:05 - loss: 1.5000 - accuracy: 0.3000
100/100 [==============================] - 10s 100ms/step - loss: 1.2345 - accuracy: 0.4500 - val_loss: 1.1000 - val_accuracy: 0.5000
Epoch 2/3
100/100 [==============================] - 10s 100ms/step - loss: 0.9345 - accuracy: 0.6500 - val_loss: 0.9000 - val_accuracy: 0.7000
Epoch 3/3
100/100 [==============================] - 10s 100ms/step - loss: 0.8345 - accuracy: 0.7500 - val_loss: 0.8000 - val_accuracy: 0.8000
""",
        [("loss", False, [(1, 1.2345), (2, 0.9345), (3, 0.8345)]), ("loss", True, [(1, 1.1), (2, 0.9), (3, 0.8)])],
        1,
    ),
    "keras3": (
        """\
Epoch 1/2
\x1b[1m  1/100\x1b[0m \x1b[37m━━━━━━━━━━━━━━━━━━━━\x1b[0m \x1b[1m1:00\x1b[0m 610ms/step - accuracy: 0.1000 - loss: 2.5000\b\b\b\b\b\r\x1b[1m 50/100\x1b[0m \x1b[32m━━━━━━━━━━\x1b[0m\x1b[37m━━━━━━━━━━\x1b[0m \x1b[1m0s\x1b[0m 6ms/step - accuracy: 0.3000 - loss: 1.5000\r\x1b[1m100/100\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m \x1b[1m1s\x1b[0m 7ms/step - accuracy: 0.4500 - loss: 1.2345 - val_accuracy: 0.5000 - val_loss: 1.1000
Epoch 2/2
\x1b[1m100/100\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m \x1b[1m1s\x1b[0m 7ms/step - accuracy: 0.6500 - loss: 0.9345 - val_accuracy: 0.7000 - val_loss: 0.9000
""",
        [("loss", False, [(1, 1.2345), (2, 0.9345)]), ("loss", True, [(1, 1.1), (2, 0.9)])],
        1,
    ),
    "keras_csvlogger": (
        """\
epoch,accuracy,loss,val_accuracy,val_loss
0,0.45,1.2345,0.5,1.1
1,0.65,0.9345,0.7,0.9
""",
        [("loss", False, [(0, 1.2345), (1, 0.9345)]), ("loss", True, [(0, 1.1), (1, 0.9)])],
        1,
    ),
    "yolo_csv": (
        """\
                  epoch,         train/box_loss,         train/obj_loss,         train/cls_loss,      metrics/precision,         metrics/recall,        metrics/mAP_0.5,   metrics/mAP_0.5:0.95,           val/box_loss,           val/obj_loss,           val/cls_loss,                  x/lr0,                  x/lr1,                  x/lr2
                      0,               0.11,               0.071,               0.05,              0.001,               0.02,            0.001,             0.0002,               0.10,               0.06,               0.04,               0.07,             0.003,             0.003
                      1,               0.10,               0.061,               0.04,              0.001,               0.02,            0.001,             0.0002,               0.09,               0.05,               0.03,               0.07,             0.003,             0.003
""",
        [("box_loss", False, [(0, 0.11), (1, 0.1)]), ("obj_loss", True, [(0, 0.06), (1, 0.05)])],
        1,
    ),
    "yolov8_csv": (
        """\
epoch,time,train/box_loss,train/cls_loss,train/dfl_loss,metrics/precision(B),metrics/recall(B),metrics/mAP50(B),metrics/mAP50-95(B),val/box_loss,val/cls_loss,val/dfl_loss,lr/pg0,lr/pg1,lr/pg2
1,10.5,1.9,3.2,1.7,0.1,0.2,0.1,0.05,1.8,3.1,1.6,0.003,0.003,0.003
2,20.5,1.8,3.1,1.6,0.1,0.2,0.1,0.05,1.7,3.0,1.5,0.003,0.003,0.003
""",
        [("dfl_loss", False, [(1, 1.7), (2, 1.6)]), ("cls_loss", True, [(1, 3.1), (2, 3.0)])],
        1,
    ),
    "yolov5_console": (
        """\

      Epoch    GPU_mem   box_loss   obj_loss   cls_loss  Instances       Size
        0/2      2.12G     0.1102     0.0712     0.0512         35        640:   0%|          | 0/8 [00:00<?, ?it/s]\r        0/2      2.12G     0.1101     0.0711     0.0511         35        640: 100%|##########| 8/8 [00:05<00:00,  1.5it/s]
                 Class     Images  Instances          P          R      mAP50   mAP50-95: 100%|##########| 4/4 [00:01<00:00,  2.5it/s]
                   all        128        929      0.101      0.202      0.103      0.054

      Epoch    GPU_mem   box_loss   obj_loss   cls_loss  Instances       Size
        1/2      2.12G     0.1001     0.0611     0.0411         35        640: 100%|##########| 8/8 [00:05<00:00,  1.5it/s]
                 Class     Images  Instances          P          R      mAP50   mAP50-95: 100%|##########| 4/4 [00:01<00:00,  2.5it/s]
                   all        128        929      0.201      0.302      0.203      0.104
""",
        [("box_loss", False, [(0, 0.1101), (1, 0.1001)]), ("mAP50", True, [(0, 0.103), (1, 0.203)])],
        1,
    ),
    "lightning_csv": (
        """\
epoch,step,train_loss_step,train_loss_epoch,val_loss
0,49,2.5,,
0,99,2.4,,
0,99,,,2.3
0,99,,2.45,
1,149,2.2,,
1,199,2.1,,
1,199,,,2.0
1,199,,2.15,
""",
        [("loss", False, [(49, 2.5), (99, 2.4), (149, 2.2), (199, 2.1)]), ("loss", True, [(99, 2.3), (199, 2.0)])],
        1,
    ),
    "lightning_tqdm": (
        """\
Epoch 0:   0%|          | 0/100 [00:00<?, ?it/s]\rEpoch 0:   1%|1         | 1/100 [00:00<00:10, 10.0it/s, loss=2.5, v_num=0]\rEpoch 0:  50%|#####     | 50/100 [00:05<00:05, 10.0it/s, loss=2.1, v_num=0]\rEpoch 0: 100%|##########| 100/100 [00:10<00:00, 10.0it/s, loss=1.9, v_num=0, val_loss=1.8]
Epoch 1:  50%|#####     | 50/100 [00:05<00:05, 10.0it/s, loss=1.7, v_num=0, val_loss=1.8]\rEpoch 1: 100%|##########| 100/100 [00:10<00:00, 10.0it/s, loss=1.6, v_num=0, val_loss=1.5]
""",
        [("loss", False, [(1, 2.5), (50, 2.1), (100, 1.9), (150, 1.7), (200, 1.6)])],
        1,
    ),
    "tqdm": (
        "  0%|          | 0/100 [00:00<?, ?it/s]\rloss=2.5:   1%|1         | 1/100 [00:00<00:10, 10.0it/s]\r  2%|1         | 2/100 [00:00<00:10, 10.0it/s, loss=2.4]\r  3%|1         | 3/100 [00:00<00:10, 10.0it/s, loss=2.3]\n",
        [("loss", False, [(1, 2.5), (2, 2.4), (3, 2.3)])],
        1,
    ),
    "paddle": (
        """\
[2031/01/01 00:00:00] ppcls INFO: [Train][Epoch 1/120][Iter: 0/5004]lr(LinearWarmup): 0.00010000, top1: 0.00000, top5: 0.01562, CELoss: 7.10234, loss: 7.10234, batch_cost: 1.5s, reader_cost: 0.5, ips: 128.00000 samples/s, eta: 1 day, 1:00:00
[2031/01/01 00:00:05] ppcls INFO: [Train][Epoch 1/120][Iter: 10/5004]lr(LinearWarmup): 0.00020000, top1: 0.00100, top5: 0.01562, CELoss: 7.00234, loss: 7.00234, batch_cost: 1.5s, reader_cost: 0.5, ips: 128.00000 samples/s, eta: 1 day, 1:00:00
[2031/01/01 00:10:05] ppcls INFO: [Train][Epoch 1/120][Avg]top1: 0.00100, top5: 0.01562, CELoss: 7.05, loss: 7.05
[2031/01/01 00:11:05] ppcls INFO: [Eval][Epoch 1][Iter: 0/782]CELoss: 6.5, loss: 6.5, top1: 0.01, top5: 0.05, batch_cost: 1.5s
[2031/01/01 00:11:05] ppcls INFO: [Eval][Epoch 1][Avg]CELoss: 6.6, loss: 6.6, top1: 0.01, top5: 0.05
[2031/01/01 00:12:00] ppcls INFO: [Train][Epoch 2/120][Iter: 0/5004]lr(LinearWarmup): 0.00010000, top1: 0.00000, top5: 0.01562, CELoss: 6.10234, loss: 6.10234, batch_cost: 1.5s, reader_cost: 0.5, ips: 128.00000 samples/s, eta: 1 day, 1:00:00
""",
        [("loss", False, [(0, 7.10234), (10, 7.00234), (5004, 6.10234)]), ("loss", True, [(10, 6.6)])],
        1,
    ),
    "paddleseg": (
        """\
2031-01-01 00:00:00 [INFO]\t[TRAIN] epoch: 1, iter: 10/80000, loss: 2.9123, lr: 0.009999, batch_cost: 0.5000, reader_cost: 0.01000, ips: 8.0000 samples/sec | ETA 10:00:00
2031-01-01 00:00:05 [INFO]\t[TRAIN] epoch: 1, iter: 20/80000, loss: 2.4123, lr: 0.009998, batch_cost: 0.5000, reader_cost: 0.01000, ips: 8.0000 samples/sec | ETA 10:00:00
2031-01-01 00:01:00 [INFO]\t[EVAL] #Images: 500 mIoU: 0.3512 Acc: 0.8512 Kappa: 0.7512 Dice: 0.4512
2031-01-01 00:02:05 [INFO]\t[TRAIN] epoch: 2, iter: 30/80000, loss: 2.2123, lr: 0.009998, batch_cost: 0.5000, reader_cost: 0.01000, ips: 8.0000 samples/sec | ETA 10:00:00
""",
        [("loss", False, [(10, 2.9123), (20, 2.4123), (30, 2.2123)])],
        1,
    ),
    "paddledet": (
        """\
[01/01 00:00:00] ppdet.engine INFO: Epoch: [0] [  0/1000] learning_rate: 0.000333 loss_xywh: 1.5 loss_iou: 3.2 loss_obj: 900.1 loss_cls: 40.2 loss: 945.0 eta: 1 day, 1:00:00 batch_cost: 3.0 data_cost: 0.1 ips: 8.0 images/s
[01/01 00:00:09] ppdet.engine INFO: Epoch: [0] [ 20/1000] learning_rate: 0.000333 loss_xywh: 1.4 loss_iou: 3.1 loss_obj: 90.1 loss_cls: 30.2 loss: 124.8 eta: 1 day, 1:00:00 batch_cost: 3.0 data_cost: 0.1 ips: 8.0 images/s
[01/01 00:01:09] ppdet.engine INFO: Epoch: [1] [  0/1000] learning_rate: 0.000333 loss_xywh: 1.4 loss_iou: 3.1 loss_obj: 80.1 loss_cls: 30.2 loss: 114.8 eta: 1 day, 1:00:00 batch_cost: 3.0 data_cost: 0.1 ips: 8.0 images/s
""",
        [("loss", False, [(0, 945.0), (20, 124.8), (1000, 114.8)])],
        1,
    ),
    "paddlenlp": (
        """\
[2031-01-01 00:00:00,123] [    INFO] - loss: 10.9876, learning_rate: 1e-05, global_step: 1, interval_runtime: 5.0, interval_samples_per_second: 1.6, interval_steps_per_second: 0.2, epoch: 0.0012
[2031-01-01 00:00:01,123] [    INFO] - loss: 10.8876, learning_rate: 2e-05, global_step: 2, interval_runtime: 5.0, interval_samples_per_second: 1.6, interval_steps_per_second: 0.2, epoch: 0.0024
""",
        [("loss", False, [(1, 10.9876), (2, 10.8876)])],
        1,
    ),
    "paddlenlp2": (
        """\
global step 10, epoch: 1, batch: 10, loss: 0.69312, accu: 0.51562, speed: 3.21 step/s
global step 20, epoch: 1, batch: 20, loss: 0.59312, accu: 0.61562, speed: 3.21 step/s
eval loss: 0.45123, accu: 0.81
global step 30, epoch: 2, batch: 5, loss: 0.49312, accu: 0.71562, speed: 3.21 step/s
""",
        [("loss", False, [(10, 0.69312), (20, 0.59312), (30, 0.49312)]), ("loss", True, [(20, 0.45123)])],
        1,
    ),
    "mindspore": (
        """\
epoch: 1 step: 1, loss is 2.3025
epoch: 1 step: 2, loss is 2.2025
Train epoch time: 1000.1 ms, per step time: 500.0 ms
epoch: 2 step: 1, loss is 2.1025
epoch: 2 step: 2, loss is 2.0025
""",
        [("loss", False, [(1, 2.3025), (2, 2.2025), (3, 2.1025), (4, 2.0025)])],
        1,
    ),
    "mindformers": (
        """\
2031-01-01 00:00:00,123 - mindformers[callback.py:310] - INFO - { Epoch:[  1/  1], step:[    1/ 1000], loss: 10.621, per_step_time: 50000ms, lr: 1e-07, overflow cond: False, loss_scale: 1.0, global_norm: [1.5]
2031-01-01 00:00:10,123 - mindformers[callback.py:310] - INFO - { Epoch:[  1/  1], step:[    2/ 1000], loss: 10.521, per_step_time: 5000ms, lr: 2e-07, overflow cond: False, loss_scale: 1.0, global_norm: [1.4]
""",
        [("loss", False, [(1, 10.621), (2, 10.521)])],
        1,
    ),
    "caffe": (
        """\
I0101 00:00:00.000000 12345 solver.cpp:228] Iteration 0, loss = 6.9123
I0101 00:00:00.000000 12345 solver.cpp:244]     Train net output #0: loss = 6.9123 (* 1 = 6.9123 loss)
I0101 00:00:00.000000 12345 sgd_solver.cpp:106] Iteration 0, lr = 0.01
I0101 00:00:05.000000 12345 solver.cpp:228] Iteration 20, loss = 5.9123
I0101 00:00:05.000000 12345 solver.cpp:244]     Train net output #0: loss = 5.9123 (* 1 = 5.9123 loss)
I0101 00:00:05.000000 12345 sgd_solver.cpp:106] Iteration 20, lr = 0.01
I0101 00:00:09.000000 12345 solver.cpp:337] Iteration 20, Testing net (#0)
I0101 00:00:09.000000 12345 solver.cpp:404]     Test net output #0: accuracy = 0.1
I0101 00:00:09.000000 12345 solver.cpp:404]     Test net output #1: loss = 5.8 (* 1 = 5.8 loss)
""",
        [("loss", False, [(0, 6.9123), (20, 5.9123)]), ("loss", True, [(20, 5.8)])],
        1,
    ),
    "tf_estimator": (
        """\
INFO:tensorflow:loss = 2.3025, step = 1
INFO:tensorflow:global_step/sec: 100.0
INFO:tensorflow:loss = 1.3025, step = 101 (1.000 sec)
INFO:tensorflow:loss = 0.3025, step = 201 (1.000 sec)
INFO:tensorflow:Saving dict for global step 201: accuracy = 0.9, global_step = 201, loss = 0.25
INFO:tensorflow:Loss for final step: 0.3.
""",
        [("loss", False, [(1, 2.3025), (101, 1.3025), (201, 0.3025)])],
        1,
    ),
    "fairseq": (
        """\
2031-01-01 00:00:00 | INFO | train_inner | epoch 001:    100 / 1000 loss=10.123, nll_loss=9.523, ppl=735.1, wps=10000, ups=2.5, wpb=4000, bsz=100, num_updates=100, lr=1.25e-05, gnorm=2.5, clip=0, loss_scale=128, train_wall=40, gb_free=10, wall=50
2031-01-01 00:01:00 | INFO | train_inner | epoch 001:    200 / 1000 loss=9.123, nll_loss=8.523, ppl=367.1, wps=10000, ups=2.5, wpb=4000, bsz=100, num_updates=200, lr=2.5e-05, gnorm=1.5, clip=0, loss_scale=128, train_wall=40, gb_free=10, wall=90
2031-01-01 00:02:00 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 8.5 | nll_loss 7.9 | ppl 240.1 | wps 30000 | wpb 3000 | bsz 90 | num_updates 1000
2031-01-01 00:02:00 | INFO | train | epoch 001 | loss 9.6 | nll_loss 9.0 | ppl 500.1 | wps 10000 | ups 2.5 | wpb 4000 | bsz 100 | num_updates 1000 | lr 1.25e-04 | gnorm 2.0
2031-01-01 00:03:00 | INFO | train_inner | epoch 002:    100 / 1000 loss=8.123, nll_loss=7.523, ppl=183.1, wps=10000, ups=2.5, wpb=4000, bsz=100, num_updates=1100, lr=1.25e-05, gnorm=2.5
""",
        [("loss", False, [(100, 10.123), (200, 9.123), (1100, 8.123)])],
        1,
    ),
    "xgboost": (
        """\
[0]\ttrain-logloss:0.65432\teval-logloss:0.66432
[1]\ttrain-logloss:0.55432\teval-logloss:0.56432
[2]\ttrain-logloss:0.45432\teval-logloss:0.46432
""",
        [
            ("loss", False, [(0, 0.65432), (1, 0.55432), (2, 0.45432)]),
            ("logloss", True, [(0, 0.66432), (1, 0.56432), (2, 0.46432)]),
        ],
        1,
    ),
    "epoch_newline": (
        """\
Epoch 1/2
----------
train Loss: 0.6512 Acc: 0.6512
val Loss: 0.5512 Acc: 0.7512

Epoch 2/2
----------
train Loss: 0.4512 Acc: 0.8512
val Loss: 0.3512 Acc: 0.9512

Training complete in 1m 5s
Best val Acc: 0.951200
""",
        [("loss", False, [(1, 0.6512), (2, 0.4512)]), ("loss", True, [(1, 0.5512), (2, 0.3512)])],
        1,
    ),
    "epoch_lines": (
        """\
Epoch 1, Training loss: 2.3012, Validation loss: 2.1012
Epoch 2, Training loss: 1.3012, Validation loss: 1.1012
""",
        [("loss", False, [(1, 2.3012), (2, 1.3012)]), ("loss", True, [(1, 2.1012), (2, 1.1012)])],
        1,
    ),
    "d2l": (
        """\
[1,  2000] loss: 2.214
[1,  4000] loss: 1.814
[2,  2000] loss: 1.414
[2,  4000] loss: 1.314
""",
        [("loss", False, [(2000, 2.214), (4000, 1.814), (6000, 1.414), (8000, 1.314)])],
        1,
    ),
    "iters_first": (
        """\
        iters: 1, epoch: 1 | loss: 1.7507450
        speed: 1.4348s/iter; left time: 8316.8494s
        iters: 2, epoch: 1 | loss: 0.2568253
        speed: 1.6342s/iter; left time: 9828.4549s
Epoch: 1 cost time: 100.8
Epoch: 1, Steps: 2 | Train Loss: 1.4088356 Vali Loss: 0.1 Test Loss: 0.2
        iters: 1, epoch: 2 | loss: 0.1507450
        iters: 2, epoch: 2 | loss: 0.0568253
Epoch: 2 cost time: 100.8
Epoch: 2, Steps: 2 | Train Loss: 0.0088356 Vali Loss: 0.0 Test Loss: 0.1
""",
        [("loss", False, [(1, 1.750745), (2, 0.2568253), (3, 0.150745), (4, 0.0568253)])],
        1,
    ),
    "paren_position": (
        """\
==========Options============
lr: 0.3334
start_iter: 0
=============End=============
Start training.
Epoch: 0 : LR = 0.3334
(0 / 628) - Loss: 3.3942 - tr_loss: 0.0285 - tcl_loss: 0.0681
(1 / 628) - Loss: 2.5566 - tr_loss: 0.0273 - tcl_loss: 0.0602
Training Loss: 2.97
Epoch: 1 : LR = 0.3334
(0 / 628) - Loss: 2.3942 - tr_loss: 0.0285 - tcl_loss: 0.0681
(1 / 628) - Loss: 1.5566 - tr_loss: 0.0273 - tcl_loss: 0.0602
""",
        [("loss", False, [(0, 3.3942), (1, 2.5566), (628, 2.3942), (629, 1.5566)])],
        1,
    ),
    "csv_epoch_step": (
        """\
Epoch,Step,Loss
0,0,3.7
0,1,3.6
0,2,3.5
1,0,3.4
1,1,3.3
1,2,3.2
""",
        [("loss", False, [(0, 3.7), (1, 3.6), (2, 3.5), (3, 3.4), (4, 3.3), (5, 3.2)])],
        1,
    ),
    "csv_train_loss_words": (
        """\
Epoch,Train Loss,Valid Loss,Test Acc,Test MAE
0,3.52,3.50,0.89,1.75
1,2.84,2.95,0.70,1.83
""",
        [("loss", False, [(0, 3.52), (1, 2.84)])],
        1,
    ),
    "iter_suffix": (
        """\
1iter - no loss logged
2iter - loss: 14.3607 - grad_norm: 85.6 - learning_rate: 4.22e-05 - epoch: 0.3349 - step: 1
3iter - loss: 11.9249 - grad_norm: 74.1 - learning_rate: 4.21e-05 - epoch: 0.3365 - step: 2
""",
        [("loss", False, [(1, 14.3607), (2, 11.9249)])],
        1,
    ),
    "gan": (
        """\
Epoch [1/100], Step [1], Loss_D: 1.3337, Loss_G: 0.3168, D(x): 0.7907, D(G(z)): 0.7902
Epoch [1/100], Step [2], Loss_D: 0.2035, Loss_G: 0.3297, D(x): 0.6284, D(G(z)): 0.6987
Epoch [2/100], Step [1], Loss_D: 0.2835, Loss_G: 0.3149, D(x): 0.6102, D(G(z)): 0.6613
""",
        [("Loss_D", False, [(1, 1.3337), (2, 0.2035), (3, 0.2835)])],
        1,
    ),
    "vae": (
        """\
Step 0: Loss = 71444.7932
Step 0          Train ELBO estimate: -558.493   Validation ELBO estimate: -390.955      Validation log p(x) estimate: -350.971  Speed: 4.43e+06 examples/s
Step 1: Loss = 50069.0411
""",
        [("loss", False, [(0, 71444.7932), (1, 50069.0411)])],
        1,
    ),
    "bisenet": (
        """\
INFO train_amp.py(365): iter: 1/150000, lr: 0.333388, eta: 10 days, 7:56:41, time: 11.23, loss: 44.3363, loss_pre: 13.7850, loss_aux0: 4.4308
INFO train_amp.py(365): iter: 2/150000, lr: 0.333388, eta: 10 days, 7:56:41, time: 11.23, loss: 34.3363, loss_pre: 13.7850, loss_aux0: 4.4308
""",
        [("loss", False, [(1, 44.3363), (2, 34.3363)])],
        1,
    ),
    "pointnet": (
        """\
2031-08-22 07:57:51,830 - Model - INFO - Namespace(use_cpu=False, gpu='0', epoch=200, learning_rate=0.334)
2031-08-22 08:11:32,832 - Model - INFO - Epoch 1 (1/200):
2031-08-22 08:11:35,115 - Model - INFO - Epoch: 1, Batch: 0, Loss: 3.241058
2031-08-22 08:11:37,132 - Model - INFO - Epoch: 1, Batch: 1, Loss: 3.026460
2031-08-22 08:11:37,132 - Model - INFO - Train Instance Accuracy: 0.8
2031-08-22 08:11:37,132 - Model - INFO - Epoch: 2, Batch: 0, Loss: 2.026460
""",
        [("loss", False, [(0, 3.241058), (1, 3.02646), (2, 2.02646)])],
        1,
    ),
    "speechbrain": (
        """\
epoch: 1, lr: 1.00e+00 - train loss: 4.52 - valid loss: 3.52, valid CER: 50.1
epoch: 2, lr: 1.00e+00 - train loss: 3.52 - valid loss: 2.52, valid CER: 40.1
""",
        [("loss", False, [(1, 4.52), (2, 3.52)]), ("loss", True, [(1, 3.52), (2, 2.52)])],
        1,
    ),
    "espnet_wenet": (
        """\
2031-01-01 00:00:00,123 DEBUG TRAIN Batch 0/0 loss 250.123456 loss_att 200.1 loss_ctc 300.2 lr 0.00000008 rank 0
2031-01-01 00:00:09,123 DEBUG TRAIN Batch 0/100 loss 150.123456 loss_att 100.1 loss_ctc 200.2 lr 0.00000808 rank 0
2031-01-01 00:01:09,123 DEBUG CV Batch 0/0 loss 120.123456 loss_att 90.1 loss_ctc 190.2 history loss 120.1 rank 0
2031-01-01 00:01:10,123 DEBUG TRAIN Batch 1/0 loss 110.123456 loss_att 100.1 loss_ctc 200.2 lr 0.00000808 rank 0
""",
        [("loss", False, [(0, 250.123456), (100, 150.123456), (101, 110.123456)])],
        1,
    ),
    "dllogger": (
        """\
DLL 2031-01-01 00:00:00.123456 - PARAMETER batch_size : 256  lr : 0.1
DLL 2031-01-01 00:00:05.123456 - Epoch: 0 Iteration: 1  train.loss : 6.9123  train.ips : 1000.1 images/s
DLL 2031-01-01 00:00:06.123456 - Epoch: 0 Iteration: 2  train.loss : 6.8123  train.ips : 1000.1 images/s
DLL 2031-01-01 00:01:06.123456 - Epoch: 0  val.loss : 6.5
""",
        [("loss", False, [(1, 6.9123), (2, 6.8123)])],
        1,
    ),
    "dllogger_json": (
        """\
DLLL {"timestamp": "1.0", "datetime": "2031-01-01", "elapsedtime": "0.1", "type": "LOG", "step": "PARAMETER", "data": {"batch_size": 256}}
DLLL {"timestamp": "1.0", "datetime": "2031-01-01", "elapsedtime": "0.1", "type": "LOG", "step": [0, 1], "data": {"train.loss": 6.9123, "train.ips": 1000.1}}
DLLL {"timestamp": "1.0", "datetime": "2031-01-01", "elapsedtime": "0.1", "type": "LOG", "step": [0, 2], "data": {"train.loss": 6.8123, "train.ips": 1000.1}}
DLLL {"timestamp": "1.0", "datetime": "2031-01-01", "elapsedtime": "0.1", "type": "LOG", "step": [0], "data": {"val.loss": 6.5, "val.top1": 0.01}}
DLLL {"timestamp": "1.0", "datetime": "2031-01-01", "elapsedtime": "0.1", "type": "LOG", "step": [], "data": {"train.loss": 6.85}}
""",
        [("loss", False, [(1, 6.9123), (2, 6.8123)])],
        1,
    ),
    "llama_factory_jsonl": (
        """\
{"current_steps": 10, "total_steps": 100, "loss": 2.5012, "lr": 4.8e-05, "epoch": 0.1, "percentage": 10.0, "elapsed_time": "0:00:10", "remaining_time": "0:01:30"}
{"current_steps": 20, "total_steps": 100, "loss": 2.4012, "lr": 4.7e-05, "epoch": 0.2, "percentage": 20.0, "elapsed_time": "0:00:20", "remaining_time": "0:01:20"}
""",
        [("loss", False, [(10, 2.5012), (20, 2.4012)])],
        1,
    ),
    "deit_jsonl": (
        """\
{"train_lr": 1e-06, "train_loss": 6.91, "test_loss": 6.81, "test_acc1": 0.5, "test_acc5": 2.1, "epoch": 0, "n_parameters": 5717416}
{"train_lr": 1e-03, "train_loss": 6.51, "test_loss": 5.81, "test_acc1": 5.5, "test_acc5": 12.1, "epoch": 1, "n_parameters": 5717416}
""",
        [("loss", False, [(0, 6.91), (1, 6.51)]), ("loss", True, [(0, 6.81), (1, 5.81)])],
        1,
    ),
    "wandb_history": (
        """\
{"_step": 0, "_runtime": 5.1, "_timestamp": 17.0, "train/loss": 2.5}
{"_step": 1, "_runtime": 6.1, "_timestamp": 18.0, "train/loss": 2.4, "val/loss": 2.3}
""",
        [("loss", False, [(0, 2.5), (1, 2.4)]), ("loss", True, [(1, 2.3)])],
        1,
    ),
    "hf_log_history_list": (
        """\
[{"loss": 2.5, "learning_rate": 1e-05, "epoch": 0.1, "step": 10}, {"loss": 2.4, "learning_rate": 1e-05, "epoch": 0.2, "step": 20}, {"eval_loss": 2.3, "epoch": 0.2, "step": 20}]
""",
        [("loss", False, [(10, 2.5), (20, 2.4)]), ("loss", True, [(20, 2.3)])],
        1,
    ),
    "keras_history_json": (
        """\
{"loss": [2.5, 2.4, 2.3], "val_loss": [2.6, 2.5, 2.4]}
""",
        [("loss", False, [(1, 2.5), (2, 2.4), (3, 2.3)]), ("loss", True, [(1, 2.6), (2, 2.5), (3, 2.4)])],
        1,
    ),
    "tb_csv_export": (
        """\
Wall time,Step,Value
1700000000.1,10,2.5
1700000001.1,20,2.4
""",
        [("loss", False, [(10, 2.5), (20, 2.4)])],
        1,
    ),
    "mmengine_json_epoch": (
        """\
{"lr": 0.01, "data_time": 0.1, "loss": 2.5, "time": 0.3, "epoch": 1, "iter": 100, "memory": 4000, "step": 100}
{"lr": 0.01, "data_time": 0.1, "loss": 2.4, "time": 0.3, "epoch": 1, "iter": 200, "memory": 4000, "step": 200}
{"accuracy/top1": 10.5, "data_time": 0.1, "time": 0.2, "step": 1}
{"lr": 0.01, "data_time": 0.1, "loss": 2.3, "time": 0.3, "epoch": 2, "iter": 300, "memory": 4000, "step": 300}
""",
        [("loss", False, [(100, 2.5), (200, 2.4), (300, 2.3)])],
        1,
    ),
    "loss_only_lines": (
        """\
4.5012
4.4012
4.3012
""",
        [("loss", False, [(1, 4.5012), (2, 4.4012), (3, 4.3012)])],
        1,
    ),
    "loss_words": (
        """\
Loss: 4.5012
Loss: 4.4012
Loss: 4.3012
""",
        [("loss", False, [(1, 4.5012), (2, 4.4012), (3, 4.3012)])],
        1,
    ),
    "python_list": (
        "[4.5012, 4.4012, 4.3012]\n",
        [("loss", False, [(1, 4.5012), (2, 4.4012), (3, 4.3012)])],
        1,
    ),
    "named_list": (
        "loss = [4.5012, 4.4012, 4.3012]\n",
        [("loss", False, [(1, 4.5012), (2, 4.4012), (3, 4.3012)])],
        1,
    ),
    "tensor_print": (
        """\
epoch 0 iter 0 loss tensor(2.5012, device='cuda:0', grad_fn=<NllLossBackward0>)
epoch 0 iter 1 loss tensor(2.4012, device='cuda:0', grad_fn=<NllLossBackward0>)
""",
        [("loss", False, [(0, 2.5012), (1, 2.4012)])],
        1,
    ),
    "yolox": (
        """\
2031-01-01 00:00:00 | INFO     | yolox.core.trainer:260 - epoch: 1/300, iter: 10/7392, gpu mem: 5000Mb, mem: 40.0Gb, iter_time: 0.500s, data_time: 0.001s, total_loss: 15.2, iou_loss: 4.5, l1_loss: 0.0, conf_loss: 8.5, cls_loss: 2.2, lr: 1.5e-10, size: 640, ETA: 10 days, 0:00:00
2031-01-01 00:00:05 | INFO     | yolox.core.trainer:260 - epoch: 1/300, iter: 20/7392, gpu mem: 5000Mb, mem: 40.0Gb, iter_time: 0.500s, data_time: 0.001s, total_loss: 14.2, iou_loss: 4.4, l1_loss: 0.0, conf_loss: 7.5, cls_loss: 2.3, lr: 1.5e-10, size: 640, ETA: 10 days, 0:00:00
2031-01-01 00:10:05 | INFO     | yolox.core.trainer:260 - epoch: 2/300, iter: 10/7392, gpu mem: 5000Mb, mem: 40.0Gb, iter_time: 0.500s, data_time: 0.001s, total_loss: 13.2, iou_loss: 4.4, l1_loss: 0.0, conf_loss: 7.5, cls_loss: 2.3, lr: 1.5e-10, size: 640, ETA: 10 days, 0:00:00
""",
        [("loss", False, [(10, 15.2), (20, 14.2), (7402, 13.2)])],
        1,
    ),
    "srun": (
        """\
0: iter 10 loss: 2.5
1: iter 10 loss: 2.7
0: iter 20 loss: 2.4
1: iter 20 loss: 2.6
""",
        [("loss", False, [(10, 2.6), (20, 2.5)])],
        2,
    ),
    "torchrun": (
        """\
[rank0]: iter 10 loss: 2.5
[rank1]: iter 10 loss: 2.7
[rank1]: iter 20 loss: 2.6
[rank0]: iter 20 loss: 2.4
""",
        [("loss", False, [(10, 2.6), (20, 2.5)])],
        2,
    ),
    "mpirun": (
        """\
[1,0]<stdout>:iter 10 loss: 2.5
[1,1]<stdout>:iter 10 loss: 2.7
[1,0]<stdout>:iter 20 loss: 2.4
[1,1]<stdout>:iter 20 loss: 2.6
""",
        [("loss", False, [(10, 2.6), (20, 2.5)])],
        2,
    ),
    "k8s": (
        """\
2031-01-01T00:00:00.123456789Z iter 10 loss: 2.5
2031-01-01T00:00:00.123456789Z iter 20 loss: 2.4
""",
        [("loss", False, [(10, 2.5), (20, 2.4)])],
        1,
    ),
    "k8s_cri": (
        """\
2031-01-01T00:00:00.123456789Z stdout F {"mode": "train", "epoch": 1, "iter": 10, "lr": 0.01, "loss": 2.5}
2031-01-01T00:00:00.123456789Z stdout F {"mode": "train", "epoch": 1, "iter": 20, "lr": 0.01, "loss": 2.4}
""",
        [("loss", False, [(10, 2.5), (20, 2.4)])],
        1,
    ),
    "ga": (
        """\
2031-01-01T00:00:00.0000000Z step,loss
2031-01-01T00:00:00.0000000Z 1,2.5
2031-01-01T00:00:00.0000000Z 2,2.4
""",
        [("loss", False, [(1, 2.5), (2, 2.4)])],
        1,
    ),
    "docker_compose": (
        """\
trainer-1  | 2031/01/01 00:00:00 - mmengine - INFO - Iter(train) [ 50/800]  lr: 9.9e-03  eta: 0:01:02  loss: 1.9376
trainer-1  | 2031/01/01 00:00:00 - mmengine - INFO - Iter(train) [100/800]  lr: 9.9e-03  eta: 0:01:02  loss: 1.8376
""",
        [("loss", False, [(50, 1.9376), (100, 1.8376)])],
        1,
    ),
    "ultralytics_hub": (
        """\
epoch, train_loss, val_loss
1, 2.5, 2.6
2, 2.4, 2.5
""",
        [("loss", False, [(1, 2.5), (2, 2.4)]), ("loss", True, [(1, 2.6), (2, 2.5)])],
        1,
    ),
    "tsv": (
        """\
step\tloss\tval_loss
1\t2.5\t
2\t2.4\t2.6
""",
        [("loss", False, [(1, 2.5), (2, 2.4)]), ("loss", True, [(2, 2.6)])],
        1,
    ),
    "csv_no_iter": (
        """\
loss,accuracy
2.5,0.1
2.4,0.2
2.3,0.3
""",
        [("loss", False, [(1, 2.5), (2, 2.4), (3, 2.3)])],
        1,
    ),
    "csv_pandas": (
        """\
,loss,accuracy
0,2.5,0.1
1,2.4,0.2
2,2.3,0.3
""",
        [("loss", False, [(0, 2.5), (1, 2.4), (2, 2.3)])],
        1,
    ),
    "csv_noheader": (
        """\
1,2.5
2,2.4
3,2.3
""",
        [("loss", False, [(1, 2.5), (2, 2.4), (3, 2.3)])],
        1,
    ),
    "csv_comment": (
        """\
# run 7
step,loss
1,2.5
2,2.4
""",
        [("loss", False, [(1, 2.5), (2, 2.4)])],
        1,
    ),
    "markdown_table": (
        """\
| epoch | loss | val_loss |
|---|---|---|
| 1 | 2.5 | 2.6 |
| 2 | 2.4 | 2.5 |
""",
        [("loss", False, [(1, 2.5), (2, 2.4)]), ("loss", True, [(1, 2.6), (2, 2.5)])],
        1,
    ),
    "hf_notebook_table": (
        """\
Step\tTraining Loss\tValidation Loss
10\t2.5\t2.6
20\t2.4\t2.5
""",
        [("loss", False, [(10, 2.5), (20, 2.4)]), ("loss", True, [(10, 2.6), (20, 2.5)])],
        1,
    ),
    "openfold_like": (
        """\
step=1 loss=2.5 lr=0.1
step=2 loss=2.4 lr=0.1
""",
        [("loss", False, [(1, 2.5), (2, 2.4)])],
        1,
    ),
    "structured_kv": (
        """\
time=2031-01-01T00:00:00Z level=info msg="train" step=1 loss=2.5 lr=0.1
time=2031-01-01T00:00:00Z level=info msg="train" step=2 loss=2.4 lr=0.1
""",
        [("loss", False, [(1, 2.5), (2, 2.4)])],
        1,
    ),
    "json_in_text": (
        """\
INFO:root:{"step": 1, "train_loss": 2.5}
INFO:root:{"step": 2, "train_loss": 2.4}
""",
        [("loss", False, [(1, 2.5), (2, 2.4)])],
        1,
    ),
    "dict_in_text": (
        """\
step 1 {'loss': 2.5, 'acc': 0.1}
step 2 {'loss': 2.4, 'acc': 0.2}
""",
        [("loss", False, [(1, 2.5), (2, 2.4)])],
        1,
    ),
    "yolov8_dict": (
        """\
epoch 1 loss 2.5
epoch 2 loss nan
epoch 3 loss inf
""",
        [("loss", False, [(1, 2.5), (2, float("nan")), (3, float("inf"))])],
        1,
    ),
    "percent": (
        """\
Epoch: 1 Loss: 2.5 Acc: 45.2%
Epoch: 2 Loss: 2.4 Acc: 55.2%
""",
        [("loss", False, [(1, 2.5), (2, 2.4)])],
        1,
    ),
    "sci": (
        """\
Iter 1 | loss 2.5E+00 | lr 1.0E-03
Iter 2 | loss 2.4E+00 | lr 1.0E-03
""",
        [("loss", False, [(1, 2.5), (2, 2.4)])],
        1,
    ),
    "ranks_text": (
        """\
rank 0 step 1 loss: 2.5
rank 1 step 1 loss: 2.7
rank 0 step 2 loss: 2.4
rank 1 step 2 loss: 2.6
""",
        [("loss", False, [(1, 2.6), (2, 2.5)])],
        2,
    ),
    "avg_and_loss": (
        """\
Epoch 0 Step 10 Loss 2.5000 Avg Loss 2.6000
Epoch 0 Step 20 Loss 2.4000 Avg Loss 2.5500
""",
        [("loss", False, [(10, 2.5), (20, 2.4)])],
        1,
    ),
    "running_only": (
        """\
Epoch 0 Step 10 avg_loss: 2.5000
Epoch 0 Step 20 avg_loss: 2.4000
""",
        [("loss", False, [(10, 2.5), (20, 2.4)])],
        1,
    ),
    "train_acc_first": (
        """\
Epoch [1/2] Train Loss: 2.5 | Train Acc: 0.1 | Val Loss: 2.6 | Val Acc: 0.2
Epoch [2/2] Train Loss: 2.4 | Train Acc: 0.2 | Val Loss: 2.5 | Val Acc: 0.3
""",
        [("loss", False, [(1, 2.5), (2, 2.4)]), ("loss", True, [(1, 2.6), (2, 2.5)])],
        1,
    ),
    "train_val_blocks": (
        """\
Epoch: 1
Train: loss 2.5 acc 0.1
Val: loss 2.6 acc 0.2
Epoch: 2
Train: loss 2.4 acc 0.1
Val: loss 2.5 acc 0.2
""",
        [("loss", False, [(1, 2.5), (2, 2.4)]), ("loss", True, [(1, 2.6), (2, 2.5)])],
        1,
    ),
    "train_val_brackets": (
        """\
[Train] Epoch 1 loss: 2.5
[Val] Epoch 1 loss: 2.6
[Train] Epoch 2 loss: 2.4
[Val] Epoch 2 loss: 2.5
""",
        [("loss", False, [(1, 2.5), (2, 2.4)]), ("loss", True, [(1, 2.6), (2, 2.5)])],
        1,
    ),
    "eval_lines": (
        """\
Step 1, loss: 2.5
Step 2, loss: 2.4
Evaluating...
Evaluation: loss: 2.6, acc: 0.1
Step 3, loss: 2.3
""",
        [("loss", False, [(1, 2.5), (2, 2.4), (3, 2.3)]), ("loss", True, [(2, 2.6)])],
        1,
    ),
    "keras_partial_only": (
        """\
  1/102 [..............................] - ETA: 19:24 - loss: 0.0340 - accuracy: 0.8261
  2/102 [..............................] - ETA: 8:29 - loss: 0.9235 - accuracy: 0.8261
  3/102 [>.............................] - ETA: 8:18 - loss: 0.9131 - accuracy: 0.9375
""",
        [("loss", False, [(1, 0.034), (2, 0.9235), (3, 0.9131)])],
        1,
    ),
    "logger_two_lines": (
        """\
>>> Epoch: [127/300]
2031-08-17 21:48:47,912: logger.py - info(), at Line 49:INFO:
Train - Epoch: [127/300][ 35/464]\tTime  0.061 ( 0.061)\tData  0.000 ( 0.347)\tLoss 2.8507e+00 (1.8739e+00)
2031-08-17 21:49:24,172: logger.py - info(), at Line 49:INFO:
Train - Epoch: [127/300][ 85/464]\tTime  0.063 ( 0.063)\tData  0.000 ( 0.339)\tLoss 1.8229e+00 (1.8718e+00)
""",
        [("loss", False, [(35, 2.8507), (85, 1.8229)])],
        1,
    ),
    "tf_total_loss": (
        """\
step: 0 total_loss: 9.88 obj_cls: 2.00 frag_cls: 4.48
INFO:tensorflow:global_step/sec: 2.4505
step: 100 total_loss: nan obj_cls: nan frag_cls: nan
INFO:tensorflow:global_step/sec: 2.55205
""",
        [("loss", False, [(0, 9.88), (100, float("nan"))])],
        1,
    ),
    "loss_net": (
        """\
02:29:53: train iter: 0 loss_net: 0.2876 loss_scale: 32768.0000 norm: 21.1195 norm_average: 1.3433 seconds: 445.796
02:31:56: train iter: 100 loss_net: nan loss_scale: 785.7533 norm: nan norm_average: 0.1052 seconds: 122.104
""",
        [("loss", False, [(0, 0.2876), (100, float("nan"))])],
        1,
    ),
    "tf_slim": (
        """\
INFO:tensorflow:global step 2454: loss = 0.9286 (1.94 sec/step)
INFO:tensorflow:global step 2455: loss = nan (2.67 sec/step)
""",
        [("loss", False, [(2454, 0.9286), (2455, float("nan"))])],
        1,
    ),
    "megatron_deepspeed": (
        """\
[2031-07-25 21:03:17,269] [INFO] [timer.py:215:stop] epoch=0/micro_step=34/global_step=34, RunningAvgSamplesPerSec=7.19, CurrSamplesPerSec=8.0, MemAllocated=59.98GB, MaxMemAllocated=63.64GB
[2031-07-25 21:03:17,269] [INFO] [logging.py:96:log_dist] [Rank 0] rank=0 time (ms) | forward: 652.74 | backward: 2164.85 | step: 1172.46
 samples/sec: 7.022 | iteration       34/   10000 | elapsed time per iteration (ms): 4103.4 | learning rate: 2.444E-06 | approx flops per GPU: 112.2TFLOPS | lm_loss: 1.451998E+01 | number of skipped iterations:   0 | number of nan iterations:   0 |
time (ms) | forward: 659.19 | backward: 2164.92 | optimizer: 1172.84 | batch generator: 0.16
[2031-07-25 21:03:21,037] [INFO] [logging.py:96:log_dist] [Rank 0] step=35, skipped=0, lr=[2.40e-06, 2.40e-06], mom=[[0.2, 0.28], [0.2, 0.28]]
 samples/sec: 7.022 | iteration       35/   10000 | elapsed time per iteration (ms): 4103.4 | learning rate: 2.406E-06 | approx flops per GPU: 112.2TFLOPS | lm_loss: 1.431998E+01 | number of skipped iterations:   0 | number of nan iterations:   0 |
""",
        [("loss", False, [(34, 14.51998), (35, 14.31998)])],
        1,
    ),
    "tf_cifar": (
        """\
2031-03-12 14:05:27.679512: step 4640, loss = 1.63 (421.8 examples/sec; 0.637 sec/batch)
2031-03-12 14:05:30.860094: step 4650, loss = 1.38 (403.1 examples/sec; 0.640 sec/batch)
""",
        [("loss", False, [(4640, 1.63), (4650, 1.38)])],
        1,
    ),
    "fairseq_old": (
        """\
| epoch 001:    450 / 1891 loss=11.954, nll_loss=10.114, ppl=1886.38, num_updates=445, lr=8.23112e-05, gnorm=1.876, loss_scale=2.000,
| epoch 001:    500 / 1891 loss=11.779, nll_loss=10.901, ppl=1637.16, num_updates=495, lr=9.23109e-05, gnorm=1.830, loss_scale=2.000,
| epoch 001 | valid on 'valid' subset | valid_loss 8.54758 | valid_nll_loss 6.1167 | valid_ppl 118.39 | num_updates 500
| epoch 001:    550 / 1891 loss=11.519, nll_loss=10.725, ppl=1440.34, num_updates=545, lr=0.333432319, gnorm=1.792, loss_scale=2.000,
""",
        [("loss", False, [(445, 11.954), (495, 11.779), (545, 11.519)]), ("loss", True, [(500, 8.54758)])],
        1,
    ),
    "fairseq_oldest": (
        """\
| epoch 010  1000 / 8223 loss=1.50 (1.83), lr=0.334, gnorm=2.4750
| epoch 010  2000 / 8223 loss=1.51 (1.72), lr=0.334, gnorm=2.4830
| epoch 010 | train loss 1.77 | train ppl 2.05 | s/checkpoint    7747 | words/s    961 | words/batch    906 | bsz    32 | lr 0.334333 | clip 100% | gnorm 2.4446
| epoch 010 | valid on 'valid' subset  1000 / 1311 loss=1.93
| epoch 010 | valid on 'valid' subset | valid loss 1.27 | valid ppl 3.16
| epoch 011  1000 / 8223 loss=1.12 (1.61), lr=0.334, gnorm=2.3193
""",
        [("loss", False, [(75007, 1.5), (76007, 1.51), (83230, 1.12)]), ("loss", True, [(76007, 1.27)])],
        1,
    ),
    "dino": (
        """\
Epoch: [0/100]  [2240/2502]  eta: 0:02:44  loss: 5.718009 (7.879502)  lr: 0.333312 (0.333378)  wd: 0.373304 (0.373357)  time: 0.941396  data: 0.333403  max mem: 13871
Epoch: [0/100]  [2250/2502]  eta: 0:02:38  loss: 5.883473 (7.869162)  lr: 0.333323 (0.333378)  wd: 0.373304 (0.373357)  time: 0.945706  data: 0.333490  max mem: 13871
""",
        [("loss", False, [(2240, 5.718009), (2250, 5.883473)])],
        1,
    ),
    "detr": (
        """\
Epoch: [0]  [210/225]  eta: 0:00:04  lr: 0.334333  class_error: 100.00  loss: 18.4873 (23.7096)  loss_ce: 0.9713 (0.0531)  loss_bbox: 1.3371 (1.7467)  loss_ce_unscaled: 0.9713 (0.0531)  cardinality_error_unscaled: 2.8333 (3.1354)
Epoch: [0]  [220/225]  eta: 0:00:04  lr: 0.334333  class_error: 90.00  loss: 17.4873 (22.7096)  loss_ce: 0.9713 (0.0531)  loss_bbox: 1.3371 (1.7467)  loss_ce_1_unscaled: 0.9
662 (0.0495)  loss_bbox_1_unscaled: 0.4238 (0.5001)
Averaged stats: lr: 0.334333  class_error: 90.00  loss: 17.4873 (22.7096)
Test:  [ 0/10]  eta: 0:00:04  class_error: 90.00  loss: 17.8873 (17.8873)
Averaged stats: class_error: 90.00  loss: 17.9873 (17.9873)
""",
        [("loss", False, [(210, 18.4873), (220, 17.4873)])],
        1,
    ),
    "paddleocr": (
        """\
[2031/11/16 11:11:18] root INFO: During the training process, after the 0th iteration, an evaluation is run every 1171 iterations
[2031/11/16 11:11:26] root INFO: epoch: [0/100], iter: 10, lr: 0.334333, acc: 0.830145, loss: 0.021555, reader_cost: 6.34777 s, batch_cost: 6.52215 s, samples: 5632, ips: 89.62276
[2031/11/16 11:11:32] root INFO: epoch: [0/100], iter: 20, lr: 0.334333, acc: 0.833200, loss: 0.029850, reader_cost: 2.66753 s, batch_cost: 2.80765 s, samples: 5120, ips: 198.11094
""",
        [("loss", False, [(10, 0.021555), (20, 0.02985)])],
        1,
    ),
    "paddledet_old": (
        """\
2031-09-25 18:39:47,914-INFO: iter: 0, lr: 0.333366, 'loss': '7131.277669', eta: 0:00:00, batch_cost: 0.33331 sec, ips: 103883.92373 images/sec
2031-09-25 18:40:34,280-INFO: iter: 2, lr: 0.333368, 'loss': '2798.198567', eta: 5:10:47, batch_cost: 15.89800 sec, ips: 0.84628 images/sec
""",
        [("loss", False, [(0, 7131.277669), (2, 2798.198567)])],
        1,
    ),
    "paddleseg_old": (
        """\
epoch=1 step=170 lr=0.33326 loss=0.3824 step/sec=5.350 | ETA 00:07:06
epoch=1 step=180 lr=0.33326 loss=0.5754 step/sec=5.663 | ETA 00:06:40
epoch=2 step=190 lr=0.33326 loss=0.6358 step/sec=4.187 | ETA 00:07:17
""",
        [("loss", False, [(170, 0.3824), (180, 0.5754), (190, 0.6358)])],
        1,
    ),
    "fairseq_json": (
        """\
{"epoch": 27, "update": 26.590, "loss": "8.639", "nll_loss": "7.472", "ppl": "132.70", "num_updates": "33700", "lr": "0.33340559", "gnorm": "1.166"}
{"epoch": 27, "update": 26.690, "loss": "8.539", "nll_loss": "7.372", "ppl": "132.70", "num_updates": "33800", "lr": "0.33340559", "gnorm": "1.166"}
""",
        [("loss", False, [(33700, 8.639), (33800, 8.539)])],
        1,
    ),
    "mmengine_json_no_iter": (
        """\
{"base_lr": 0.1, "lr": 0.1, "data_time": 0.2, "loss": 2.5, "time": 0.5, "epoch": 1, "iter": 50, "memory": 100, "step": 50}
{"base_lr": 0.1, "lr": 0.1, "data_time": 0.2, "loss": 2.4, "time": 0.5, "epoch": 1, "iter": 100, "memory": 100, "step": 100}
{"coco/bbox_mAP": 0.1, "coco/bbox_mAP_50": 0.2, "data_time": 0.1, "time": 0.2, "step": 1}
""",
        [("loss", False, [(50, 2.5), (100, 2.4)])],
        1,
    ),
    "restarting_steps": (
        """\
Step 1/3 loss: 3.9
Step 2/3 loss: 3.8
Step 3/3 loss: 3.7
Step 1/3 loss: 2.9
Step 2/3 loss: 2.8
Step 3/3 loss: 2.7
Step 1/3 loss: 1.9
Step 2/3 loss: 1.8
Step 3/3 loss: 1.7
""",
        [("loss", False, [(1, 3.9), (2, 3.8), (3, 3.7), (4, 2.9), (5, 2.8), (6, 2.7), (7, 1.9), (8, 1.8), (9, 1.7)])],
        1,
    ),
    "gradient_norm_first": (
        """\
step 1 | grad_norm 1.2 | loss 2.5
step 2 | grad_norm 1.3 | loss 2.4
""",
        [("loss", False, [(1, 2.5), (2, 2.4)])],
        1,
    ),
    "loguru": (
        """\
2031-01-01 00:00:00.123 | INFO     | __main__:train:57 - epoch 1 step 1 loss 2.5
2031-01-01 00:00:00.123 | INFO     | __main__:train:57 - epoch 1 step 2 loss 2.4
""",
        [("loss", False, [(1, 2.5), (2, 2.4)])],
        1,
    ),
    "absl": (
        """\
I0101 00:00:00.123456 140000000000000 train.py:88] step=1 train_loss=2.5
I0101 00:00:00.123456 140000000000000 train.py:88] step=2 train_loss=2.4
I0101 00:00:00.123456 140000000000000 train.py:99] step=2 eval_loss=2.6
""",
        [("loss", False, [(1, 2.5), (2, 2.4)]), ("loss", True, [(2, 2.6)])],
        1,
    ),
    "t5x_jsonl": (
        """\
{"step": 1, "type": "train", "loss": 2.5}
{"step": 2, "type": "train", "loss": 2.4}
{"step": 2, "type": "eval", "loss": 2.6}
""",
        [("loss", False, [(1, 2.5), (2, 2.4)]), ("loss", True, [(2, 2.6)])],
        1,
    ),
    "accelerate_tqdm": (
        "Steps:   0%|          | 0/400 [00:00<?, ?it/s]\rSteps:   0%|          | 1/400 [00:01<10:00,  1.5s/it, lr=1e-5, step_loss=0.25]\rSteps:   1%|          | 2/400 [00:02<10:00,  1.5s/it, lr=1e-5, step_loss=0.24]\n",
        [("loss", False, [(1, 0.25), (2, 0.24)])],
        1,
    ),
    "kohya": (
        "steps:   1%|          | 1/1600 [00:05<2:13:15,  5.00s/it, avr_loss=0.125]\rsteps:   1%|          | 2/1600 [00:05<2:13:15,  5.00s/it, avr_loss=0.115]\n",
        [("loss", False, [(1, 0.125), (2, 0.115)])],
        1,
    ),
    "openmmlab_recognizer": (
        """\
2031-02-03 04:05:06,789 - mmaction - INFO - Epoch [1][20/100]\tlr: 1.0e-02, eta: 1:00:00, time: 0.5, data_time: 0.1, memory: 100, top1_acc: 0.1, top5_acc: 0.2, loss_cls: 5.9, loss: 5.9, grad_norm: 10.1
2031-02-03 04:05:06,789 - mmaction - INFO - Epoch [1][40/100]\tlr: 1.0e-02, eta: 1:00:00, time: 0.5, data_time: 0.1, memory: 100, top1_acc: 0.1, top5_acc: 0.2, loss_cls: 5.8, loss: 5.8, grad_norm: 10.1
2031-02-03 04:05:06,789 - mmaction - INFO - Epoch(val) [1][10]\ttop1_acc: 0.2, top5_acc: 0.4
""",
        [("loss", False, [(20, 5.9), (40, 5.8)])],
        1,
    ),
    "mmcv_no_logger": (
        """\
Epoch [1][20/100]\tlr: 1.0e-02, eta: 1:00:00, time: 0.5, loss: 5.9
Epoch [2][20/100]\tlr: 1.0e-02, eta: 1:00:00, time: 0.5, loss: 5.8
""",
        [("loss", False, [(20, 5.9), (120, 5.8)])],
        1,
    ),
    "openpcdet": (
        """\
2031-01-01 00:00:00,123   INFO  epoch: 0/80, acc_iter=50, cur_iter=49/928, batch_size=4, iter_cost=0.5s, loss=2.5, lr=0.001
2031-01-01 00:00:00,123   INFO  epoch: 0/80, acc_iter=100, cur_iter=99/928, batch_size=4, iter_cost=0.5s, loss=2.4, lr=0.001
""",
        [("loss", False, [(50, 2.5), (100, 2.4)])],
        1,
    ),
    "lightning_rich_like": (
        """\
Epoch 0/1  ━━━━━━━━ 10/10 0:00:01 • 0:00:00 8.5it/s v_num: 0.000 train_loss: 2.5 val_loss: 2.6
Epoch 1/1  ━━━━━━━━ 10/10 0:00:01 • 0:00:00 8.5it/s v_num: 0.000 train_loss: 2.4 val_loss: 2.5
""",
        [("loss", False, [(0, 2.5), (1, 2.4)]), ("loss", True, [(0, 2.6), (1, 2.5)])],
        1,
    ),
    "fastai": (
        """\
epoch     train_loss  valid_loss  accuracy  time
0         2.500000    2.600000    0.100000  00:10
1         2.400000    2.500000    0.200000  00:10
""",
        [("loss", False, [(0, 2.5), (1, 2.4)]), ("loss", True, [(0, 2.6), (1, 2.5)])],
        1,
    ),
    "opennmt": (
        """\
[2031-01-01 00:00:00,123 INFO] Step 50/ 1000; acc:  10.50; ppl: 1234.50; xent: 7.12; lr: 0.00001; 1000/1000 tok/s;     10 sec
[2031-01-01 00:00:10,123 INFO] Step 100/ 1000; acc:  12.50; ppl: 934.50; xent: 6.84; lr: 0.00002; 1000/1000 tok/s;     20 sec
""",
        [("ppl", False, [(50, 1234.5), (100, 934.5)])],
        1,
    ),
    "unet": (
        "Epoch 1/5:  50%|#####     | 100/200 [00:10<00:10, 10.0img/s, loss (batch)=0.5]\rEpoch 1/5:  51%|#####     | 101/200 [00:10<00:10, 10.0img/s, loss (batch)=0.4]\n",
        [("loss", False, [(100, 0.5), (101, 0.4)])],
        1,
    ),
    "minbatch": (
        """\
[Epoch 1/5] [Batch 1/10] [D loss: 0.5] [G loss: 0.6]
[Epoch 1/5] [Batch 2/10] [D loss: 0.4] [G loss: 0.7]
""",
        [("D loss", False, [(1, 0.5), (2, 0.4)])],
        1,
    ),
    "hf_deepspeed": (
        """\
{'loss': 6.2, 'learning_rate': 0.001, 'epoch': 0.02}
{'loss': 5.2, 'learning_rate': 0.001, 'epoch': 0.04}
  8%|#####         | 1999/24128 [1:52:09<20:27:23,  3.33s/it][2031-11-26 03:07:16,494] [INFO] [logging.py:69:log_dist] [Rank 0] step=2000, skipped=1995, lr=[0.001, 0.001], mom=[0.0, 0.0]
{'loss': 4.2, 'learning_rate': 0.001, 'epoch': 0.08}
  8%|#####         | 2500/24128 [1:52:09<20:27:23,  3.33s/it]{'loss': 3.2, 'learning_rate': 0.001, 'epoch': 0.1}
""",
        [("loss", False, [(1, 6.2), (2, 5.2), (3, 4.2), (4, 3.2)])],
        1,
    ),
    "config_then_log": (
        """\
model: resnet
epochs: 100
batch: 16
lr: 0.01
loss_weight: 1.0
label_smoothing: 0.1
step: 10
Iter 10: loss 2.5
Iter 20: loss 2.4
""",
        [("loss", False, [(10, 2.5), (20, 2.4)])],
        1,
    ),
    "dllogger_summary": (
        """\
DLLL {"type": "LOG", "step": [0, 1], "data": {"train.loss": 2.5}}
DLLL {"type": "LOG", "step": [0, 2], "data": {"train.loss": 2.4}}
DLLL {"type": "LOG", "step": [0], "data": {"train.loss": 2.45, "val.loss": 2.6}}
DLLL {"type": "LOG", "step": [1, 1], "data": {"train.loss": 2.3}}
DLLL {"type": "LOG", "step": [], "data": {"train.loss": 2.35}}
""",
        [("loss", False, [(1, 2.5), (2, 2.4), (3, 2.3)]), ("loss", True, [(2, 2.6)])],
        1,
    ),
    "counted_with_val": (
        """\
loss: 2.5
loss: 2.4
val loss: 2.6
loss: 2.3
""",
        [("loss", False, [(1, 2.5), (2, 2.4), (3, 2.3)]), ("loss", True, [(2, 2.6)])],
        1,
    ),
    "sticky_block": (
        """\
Iteration 10:
  loss: 2.5
  lr: 0.1
Iteration 20:
  loss: 2.4
  lr: 0.1
""",
        [("loss", False, [(10, 2.5), (20, 2.4)])],
        1,
    ),
    "epoch_then_bare_losses": (
        """\
Epoch 1
loss: 2.5
loss: 2.4
loss: 2.3
Epoch 2
loss: 2.2
loss: 2.1
loss: 2.0
""",
        [("loss", False, [(1, 2.5), (2, 2.4), (3, 2.3), (4, 2.2), (5, 2.1), (6, 2.0)])],
        1,
    ),
    "mmcv_val_as_train": (
        """\
{"mode": "train", "epoch": 6, "iter": 15950, "lr": 5e-05, "memory": 4718, "data_time": 0.01, "decode.loss_seg": 0.35, "loss": 3.25, "time": 0.3}
{"mode": "train", "epoch": 6, "iter": 500, "lr": 5e-05, "memory": 4718, "aAcc": 0.89, "mIoU": 0.47, "mAcc": 0.58}
{"mode": "train", "epoch": 6, "iter": 16050, "lr": 5e-05, "memory": 4718, "data_time": 2.7, "decode.loss_seg": 0.40, "loss": 3.15, "time": 3.0}
""",
        [("loss", False, [(15950, 3.25), (16050, 3.15)])],
        1,
    ),
    "pcdet_timm": (
        """\
2031-01-05 16:34:37,748   INFO  Train:    1/3 ( 33%) [   0/323 (  0%)]  Loss: 515.5 (516.)  LR: 1.000e-04  Time cost: 00:04/21:46 [00:04/1:05:18]  Acc_iter 1           Data time: 0.87(0.87)  Forward time: 3.18(3.18)
2031-01-05 16:34:49,377   INFO  Train:    1/3 ( 33%) [  49/323 ( 15%)]  Loss: 35.75 (80.5)  LR: 1.351e-04  Time cost: 00:15/01:25 [00:15/04:48]  Acc_iter 50          Data time: 0.00(0.02)  Forward time: 0.31(0.29)
""",
        [("loss", False, [(1, 515.5), (50, 35.75)])],
        1,
    ),
    "nnunet": (
        """\
2031-06-20 07:56:48.872122:
epoch:  9
2031-06-20 07:57:38.016679: train loss : 0.3288
2031-06-20 07:57:41.970286: validation loss: 0.2796
2031-06-20 07:57:41.971284: Average global foreground Dice: [0.85, 0.05, 0.25]
2031-06-20 07:57:41.971409: (interpret this as an estimate for the Dice of the different classes. This is not exact.)
2031-06-20 07:57:42.467828: lr: 1e-05
2031-06-20 07:57:42.998433: This epoch took 54.126240 s
2031-06-20 07:57:42.998909:
epoch:  10
2031-06-20 07:58:52.649420: train loss : 0.2887
2031-06-20 07:58:56.855810: validation loss: 0.2394
2031-06-20 07:58:57.406631: lr: 2e-05
""",
        [("loss", False, [(9, 0.3288), (10, 0.2887)]), ("loss", True, [(9, 0.2796), (10, 0.2394)])],
        1,
    ),
    "camel": (
        """\
Epoch 81, Loss: 0.00012, ValLoss: 0.00010
Epoch 82, Loss: 0.00011, ValLoss: 9.6e-05
""",
        [("loss", False, [(81, 0.00012), (82, 0.00011)]), ("loss", True, [(81, 0.0001), (82, 9.6e-05)])],
        1,
    ),
    "moving": (
        """\
Epoch 23: Moving Training Loss -0.95, Validation Loss -0.94
Epoch 24: Moving Training Loss -0.96, Validation Loss -0.95
""",
        [("loss", False, [(23, -0.95), (24, -0.96)]), ("loss", True, [(23, -0.94), (24, -0.95)])],
        1,
    ),
    "brackets_train_val": (
        """\
Epoch [26/100], Loss: 175.5,
[Training] Acc: 0.95, F1: 0.85
[Validation] Acc: 0.85, F1: 0.45
Epoch [27/100], Loss: 165.5,
[Training] Acc: 0.96, F1: 0.88
Decay learning rate to lr: 0.0001.
[Validation] Acc: 0.86, F1: 0.51
""",
        [("loss", False, [(26, 175.5), (27, 165.5)])],
        1,
    ),
    "mindyolo": (
        """\
2031-12-25 09:58:42,787 [INFO] Epoch 1/200, Step 100/3995, imgsize (640, 640), loss: 11.5, lbox: 3.5, cur_lr: 0.099
2031-12-25 09:58:42,800 [INFO] Epoch 1/200, Step 100/3995, step time: 5736.71 ms
2031-12-25 09:59:48,236 [INFO] Epoch 1/200, Step 200/3995, imgsize (640, 640), loss: 8.5, lbox: 2.5, cur_lr: 0.098
2031-12-25 09:59:48,236 [INFO] Epoch 2/200, Step 100/3995, imgsize (640, 640), loss: 7.5, lbox: 2.5, cur_lr: 0.098
""",
        [("loss", False, [(100, 11.5), (200, 8.5), (4095, 7.5)])],
        1,
    ),
    "onmt_tf": (
        """\
INFO:tensorflow:Step = 150200 ; steps/s = 0.84, source words/s = 25077, target words/s = 27841 ; Learning rate = 0.000081 ; Loss = 1.500000
INFO:tensorflow:Step = 150400 ; steps/s = 0.84, source words/s = 24997, target words/s = 27751 ; Learning rate = 0.000081 ; Loss = 1.400000
""",
        [("loss", False, [(150200, 1.5), (150400, 1.4)])],
        1,
    ),
    "md_plain": (
        """\
epoch | train loss | train acc | val loss | val acc
-- | -- | -- | -- | --
5 | 0.65 | 0.51 | 0.66 | 0.55
10 | 0.64 | 0.52 | 0.65 | 0.55
""",
        [("loss", False, [(5, 0.65), (10, 0.64)]), ("loss", True, [(5, 0.66), (10, 0.65)])],
        1,
    ),
}


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_each_shape_is_read_as_what_it_is(tmp_path, name):
    text, expected, ranks = SHAPES[name]
    path = tmp_path / "some.file"
    path.write_bytes(text.encode())
    record = read_log(path)
    assert record.ranks == ranks
    for metric, of_validation, points in expected:
        curve = (record.validation if of_validation else record.curves)[metric]
        assert curve.iterations.tolist() == [at for at, _ in points]
        for found, (_, value) in zip(curve.values.tolist(), points, strict=True):
            assert found == pytest.approx(value, rel=1e-12, nan_ok=True)
